"""A6: what controls an instance stands still: whoever asks is told so at once, and what serves goes on."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from tests.conftest import MODES, Machine, new_machine, until

SECONDS = 30.0  # for a command that answers within 3 s, on a busy machine
START_ERROR = 8


@pytest.fixture(scope="module", params=MODES)
def served(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with new_machine() as made:
        made.mode = request.param
        made.start("--mode", made.mode, "--workers", "2")
        yield made


def pid_of(machine: Machine, process: str) -> int:
    if process == "supervisord":
        return int((machine.runtime / "asgictl/default/supervisord.pid").read_text())
    pids: list[int] = []

    def is_known() -> bool:  # whoever stood still a moment ago may not have answered yet
        found = machine.status()["processes"]
        pids.extend(each["pid"] for each in found if each["process"] == process)
        return bool(pids)

    until(is_known, f"{process} is known", SECONDS)
    return pids[-1]


@contextmanager
def still(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def serves(machine: Machine) -> bool:
    with urlopen(machine.url + "/", timeout=SECONDS) as answered:
        return bool(answered.status == 200)


def test_a_supervisord_that_stands_still_is_told(served: Machine) -> None:
    pid = pid_of(served, "supervisord")
    with still(pid):
        for _ in range(2):  # the second time nobody waits for it
            asked = served.run("status", "--json", seconds=SECONDS)
            assert asked.returncode == 0
            found = json.loads(asked.stdout)
            assert f"supervisord (pid {pid}) does not answer" in " ".join(found["warnings"])
            assert sum(each["ready"] for each in found["processes"]) == (3 if served.mode == "split" else 2)
        assert f"supervisord (pid {pid}) does not answer" in served.run("status").stdout
        changes = [("reload",), ("restart", "controller"), ("start", "-d")]
        changes += [("scale", "worker=3")] if served.mode == "split" else []
        with ThreadPoolExecutor() as pool:
            for done in pool.map(lambda change: served.run(*change, seconds=SECONDS), changes):
                assert (done.returncode, done.stderr.count("\n")) == (START_ERROR, 1), done
                assert "does not answer" in done.stderr
        assert serves(served)
    until(lambda: "does not answer" not in served.run("status").stdout, "it is well again")
    assert served.run("reload").returncode == 0


def test_the_dead_are_seen_to_beside_a_supervisord_that_stands_still(served: Machine) -> None:
    role = "worker" if served.mode == "split" else "server"
    ready = served.status()["ready"]
    killed = [each["pid"] for each in ready if each["role"] == role]
    with still(pid_of(served, "supervisord")):
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(
            lambda: not list((served.runtime / "asgictl/default").glob(f"*-{killed[0]}")), "the controller has reaped"
        )
        assert served.run("status", seconds=SECONDS).returncode == 0
    until(lambda: sum(r["role"] == role for r in served.status()["ready"]) == 2, "others take their places")
    assert serves(served)


def test_a_controller_that_stands_still_is_told(served: Machine) -> None:
    with still(pid_of(served, "controller")):
        asked = served.run("status", seconds=SECONDS)
        assert asked.returncode == 0
        assert "the controller does not answer" in asked.stdout
        assert serves(served)
    until(lambda: "does not answer" not in served.run("status").stdout, "it is well again")


def test_both_may_stand_still(served: Machine) -> None:
    with still(pid_of(served, "controller"), pid_of(served, "supervisord")):
        asked = served.run("status", seconds=SECONDS)
        assert (asked.returncode, asked.stdout.count("does not answer")) == (0, 2)
    until(lambda: "does not answer" not in served.run("status").stdout, "they are well again")


def test_status_does_not_wait_for_redis(served: Machine) -> None:
    with still(pid_of(served, "redis")):
        began = time.monotonic()
        while time.monotonic() < began + 2:
            assert served.run("status", seconds=SECONDS).returncode == 0
    until(lambda: serves(served), "it serves")
