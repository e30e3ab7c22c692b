"""asgictl compare as a user has it; the fixture sees that nothing is left running."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Machine, until
from tests.examples.conftest import EXAMPLES

ORDER = ("split", "in-process", "gunicorn", "gunicorn asgi")
ONCE = ("--rounds", "1", "--minutes", "0.1")  # a disturbed round is not made again
SHORT = ("--duration", "2", *ONCE)
HALF = """
from asgictl.app import runtime
if runtime.current().mode == "split":
    raise RuntimeError("not today")
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"half"]
"""
LOCUSTFILE = """
from asgictl.loadtests.users import FixedRate
from locust import FastHttpUser, task
class Mine(FixedRate, FastHttpUser):
    @task
    def mine(self):
        self.client.get("/where", name="mine")
"""


def report(folder: Path) -> dict[str, Any]:
    assert (folder / "report.html").stat().st_size > 10_000
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def runs(folder: Path, name: str) -> list[dict[str, Any]]:
    return [run for each in report(folder)["scenarios"] if each["name"] == name for run in each["runs"]]


def compare(machine: Machine, out: Path, *told: str) -> None:
    """Compare: for longer than 2 s only where a side did nothing for as long, on a machine that stood still."""
    for duration in ("2", "20"):
        done = machine.run("compare", *told, *ONCE, "--duration", duration, "--out", str(out), seconds=580)
        assert done.returncode == 0, done.stderr
        if all(run["rate"] > 0 for each in report(out)["scenarios"] for run in each["runs"]):
            break


def cost_in_both_modes(found: list[dict[str, Any]]) -> None:
    split, inprocess = sorted(found, key=lambda run: ORDER.index(run["side"]))
    assert (split["side"], inprocess["side"]) == ("split", "in-process")
    assert split["rate"] > 0
    assert inprocess["rate"] > 0
    assert split["failed"] == inprocess["failed"] == 0, split["errors"] | inprocess["errors"]
    assert {"worker", "interface", "redis"} <= {role for role, cost in split["cpu"].items() if cost > 0}
    assert inprocess["cpu"]["server"] > 0


@pytest.mark.timeout(1200)
def test_both_modes_are_measured_with_what_they_cost(machine: Machine, tmp_path: Path) -> None:
    scenarios = [word for name in ("websocket", "broadcast") for word in ("--scenario", name)]
    compare(machine, tmp_path, *scenarios, "--users", "20")
    cost_in_both_modes(runs(tmp_path, "websocket"))
    for run in runs(tmp_path, "broadcast"):
        assert run["rate"] > 0, run
        assert run["failed"] == 0, run["errors"]
    assert report(tmp_path)["sides"][1]["workers"] == 3, "as many processes as split has"


@pytest.mark.timeout(1500)
def test_a_deploy_is_noticed_in_one_mode_alone(machine: Machine, tmp_path: Path) -> None:
    for duration in ("2", "30", "90"):  # a busy machine may need more than the 10 s that a deploy has at least
        told = ("--rounds", "1", "--users", "20", "--duration", duration, "--minutes", "0.1", "--out", str(tmp_path))
        done = machine.run("compare", "--scenario", "deploy", *told, seconds=580)
        assert done.returncode == 0, done.stderr
        found = sorted(runs(tmp_path, "deploy"), key=lambda run: ORDER.index(run["side"]))
        split, inprocess, best = (run["happenings"][0] for run in found)
        if not split["note"] and not inprocess["note"]:
            break
    assert (split["note"], inprocess["note"]) == ("", "")
    assert (split["way"], split["affected"], split["requests"]) == ("asgictl reload", 0, 0), runs(tmp_path, "deploy")
    assert inprocess["affected"] > 0
    assert (best["way"], best["at"] is None) == ("SIGHUP", bool(best["note"])), "seen to its end, or not counted"


@pytest.mark.timeout(1200)
def test_what_each_side_depends_on_is_killed_in_turn(machine: Machine, tmp_path: Path) -> None:
    told = ("--scenario", "crash", "--rounds", "1", "--users", "20", "--minutes", "0.1", "--out", str(tmp_path))
    done = machine.run("compare", *told, seconds=580)
    assert done.returncode == 0, done.stderr
    assert all(run["done"] > run["twice"] for run in runs(tmp_path, "crash"))
    found = {
        run["side"]: {each["kind"]: re.sub(r"held \d+ of \d+ ", "held ", each["way"]) for each in run["happenings"]}
        for run in runs(tmp_path, "crash")
    }
    assert found["split"] == {
        "application": "kill -9 of a worker", "connections": "kill -9 of an interface, which held connections",
        "master": "", "redis": "kill -9 of Redis",
    }  # fmt: skip
    assert found["in-process"] == {
        "application": "kill -9 of a server, which held connections", "master": "kill -9 of the master",
        "connections": "kill -9 of a server, which held connections", "redis": "kill -9 of Redis",
    }  # fmt: skip


@pytest.mark.timeout(1200)
def test_a_storm_an_upgrade_a_held_interpreter_and_many_events(machine: Machine, tmp_path: Path) -> None:
    names = [word for name in ("noisy", "upgrade", "storm", "leak") for word in ("--scenario", name)]
    done = machine.run(
        "compare", *names, *SHORT, "--users", "12", "--events", "1000", "--out", str(tmp_path), seconds=580
    )
    assert done.returncode == 0, done.stderr
    noisy, upgrade, storm, leak = (
        {run["side"]: run for run in runs(tmp_path, name)} for name in ("noisy", "upgrade", "storm", "leak")
    )
    assert {run["happenings"][0]["way"] for run in noisy.values()} == {"GET /hold?ms=2000"}
    held = noisy["in-process"]
    was_seen = not held["happenings"][0]["note"]  # to its end: a busy machine may hold for longer than the run
    assert held["gap"] >= 1 or 0 in held["connections"]["server"] or not was_seen, "nobody was on what was held"
    assert upgrade["split"]["happenings"][0]["way"] == "asgictl reload --interfaces"
    assert upgrade["split"]["closed"] == 0, "each hands its WebSockets over"
    for side in ("split", "in-process"):
        assert storm[side]["done"] >= 12, storm[side]["errors"]
        assert leak[side]["done"] >= 1000


@pytest.mark.timeout(1200)
def test_a_target_that_fails_in_one_mode_is_measured_in_the_other_and_beside_a_third(
    machine: Machine, tmp_path: Path
) -> None:
    machine.directory = tmp_path
    (tmp_path / "half.py").write_text(HALF)
    also = f"{Path(sys.executable).parent / 'gunicorn'} half:app -b {{bind}} -w 1 --log-level warning"
    done = machine.run(
        "compare", "half:app", "--scenario", "hello", *SHORT, "--rate", "50", "--also", also, seconds=580
    )
    assert done.returncode == 0, done.stderr
    assert "not today" in done.stdout
    split, inprocess, third = sorted(
        runs(tmp_path / "asgictl-compare", "hello"), key=lambda run: ORDER.index(run["side"])
    )
    assert "not today" in split["error"]
    assert inprocess["rate"] > 0
    assert third["rate"] > 0
    assert third["cpu"].keys() == {"server"}


@pytest.mark.timeout(1200)
def test_a_locustfile_of_the_users_own(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOCUSTFILE)
    compare(machine, tmp_path, "-f", str(tmp_path / "mine.py"), "--rate", "40", "--users", "20")
    cost_in_both_modes(found := runs(tmp_path, "locustfile"))
    assert all(run["rate"] <= 60 for run in found), "it kept to the rate"
    assert not any(run["unsent"] for run in found), "and none that was sent is said not to have been"


@pytest.mark.timeout(1200)
def test_each_mode_runs_its_own_form_of_the_django_site(machine: Machine, tmp_path: Path) -> None:
    machine.directory = EXAMPLES / "django_site"
    machine.environment |= {"DJANGO_SITE_DATA": str(tmp_path), "DJANGO_SITE_DEBUG": "0"}
    prepare = [sys.executable, "manage.py", "prepare"]
    subprocess.run(prepare, cwd=machine.directory, env=machine.environment, check=True)
    own = ("--split", "asgictl_app:app", "--inprocess", "mysite.asgi:application", "--control", "asgictl_app:app")
    names = ("--scenario", "django-write", "--scenario", "django-socket")
    compare(machine, tmp_path, *own, *names, "--users", "4")
    for name in ("django-write", "django-socket"):
        found = runs(tmp_path, name)
        assert {run["side"] for run in found} == {"split", "in-process", "in-process WSGI"}
        assert all(run["rate"] > 0 and not run["failed"] for run in found), [run["errors"] for run in found]


@pytest.mark.timeout(1200)
def test_a_curve_has_steps_of_both_sides(machine: Machine, tmp_path: Path) -> None:
    command = machine.command("compare", "--curve", "cpu", "--p99-ms", "1", "--users", "4", "--out", str(tmp_path))
    done = subprocess.run(
        command, env=machine.environment, capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "never with split" in done.stdout, "what computes for 5 ms takes longer than 1 ms"
    assert {name: len(climb["steps"]) for name, climb in report(tmp_path)["curve"]["climbs"].items()} == {
        "split": 3, "in-process": 3,
    }  # fmt: skip


def test_a_rate_needs_users_that_keep_to_one(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(LOCUSTFILE.replace("FixedRate, ", ""))
    done = machine.run("compare", "-f", str(tmp_path / "plain.py"), "--rate", "40", "--out", str(tmp_path))
    assert (done.returncode, "Mine does not" in done.stderr) == (12, True), done.stderr


@pytest.mark.timeout(1200)
def test_ctrl_c_stops_and_reports_what_there_is(machine: Machine, tmp_path: Path) -> None:
    command = machine.command("compare", "--scenario", "hello", "--duration", "3", "--out", str(tmp_path))
    process = subprocess.Popen(
        command,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "round 2" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    text, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "INTERRUPTED" in text
    assert report(tmp_path)["interrupted"] is True
    until(lambda: not machine.pids(), "nothing is left")


MISTAKES = {
    "an unknown scenario": (["--scenario", "nonsense"], "'nonsense' is not one of", 2),
    "a scenario of the demo's": (["app:app", "--scenario", "cpu"], "--scenario cpu is for the demo", 12),
    "a path that is none": (["--path", "hello"], "begin with /, as in /hello", 12),
    "a locustfile and a scenario": (["-f", "x.py", "--scenario", "hello"], "leave --scenario out", 12),
    "a way to deploy what is not there": (["--also-reload", "x"], "for the side of --also", 12),
    "a folder that cannot be": (["--out", "/dev/null/x"], "cannot be written to", 12),
    "no such locustfile": (["-f", "/nowhere/x.py"], "there is no such file", 12),
    "a third side without an address": (["--also", "gunicorn x"], "--also needs {bind} or {port}", 12),
    "a third side that cannot be read": (["--also", "gunicorn '{bind}"], "No closing quotation", 12),
    "a third side that is not installed": (["--also", "nosuchserver {bind}"], "there is no program nosuchserver", 12),
    "more users than descriptors": (["--users", "90000"], "file descriptors", 12),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_at_the_start(machine: Machine, tmp_path: Path, mistake: str) -> None:
    arguments, text, status = MISTAKES[mistake]
    machine.directory = tmp_path
    limited = ["bash", "-c", 'ulimit -n 1500; exec "$@"', "-", *machine.command("compare", *arguments)]
    done = subprocess.run(
        limited, env=machine.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "text"), [("import locust\ndef (:\n", "SyntaxError"), ("x = 1\n", "has no class of users")]
)
def test_a_locustfile_that_does_not_work(machine: Machine, tmp_path: Path, source: str, text: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    done = machine.run("compare", "-f", str(tmp_path / "bad.py"), "--out", str(tmp_path))
    assert (done.returncode, text in done.stderr) == (12, True), done.stderr
    assert "locust/" not in done.stderr, "the traceback is theirs alone"


@pytest.mark.timeout(1200)
def test_a_target_that_starts_in_no_way(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("compare", "nowhere:app", *SHORT, "--out", str(tmp_path), seconds=580)
    assert done.returncode == 12
    assert done.stderr.count("there is no module 'nowhere'") == 2


def test_without_the_extra_it_says_what_to_install(machine: Machine, tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name in ('locust', 'matplotlib') else find(name, *more)\n"
        "from asgictl.cli.main import main\n"
        "main(['compare'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], env=machine.environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        12,
        "Error: asgictl compare needs locust, matplotlib: pip install 'asgictl[compare]'\n",
    )
