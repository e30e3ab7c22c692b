"""An upgrade of asgictl itself, under load: `pip install -U`, then `asgictl reload --all`."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

import asgictl
from asgictl.wire.handover import VERSION
from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS, closed_with
from tests.scenarios.test_deploys import SITE, Load, deploy, served

NEXT = "0.1.1"
# What makes hand-over records of this code those of the version before.
BEFORE = {
    "wire/handover.py": [
        (f"VERSION = {VERSION}", f"VERSION = {VERSION - 1}"),
        ("    waited_seconds: float = 0.0\n", ""),
    ],
    "interface/consumer_socket.py": [
        ("            perf_counter() - self._waiting_since if self._waiting_since else 0.0,\n", ""),
        (" - record.waited_seconds", ""),
    ],
}
STAYING = {"redis", "supervisord"}


@pytest.fixture
def installed(machine: Machine, tmp_path: Path) -> Path:
    """asgictl as a copy of its own, from which the machine runs it."""
    site = tmp_path / "site"
    machine.directory = tmp_path
    machine.environment["PYTHONPATH"] = str(site)
    copied = site / "asgictl"
    shutil.copytree(Path(asgictl.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    deploy(machine, "one", SITE)
    return copied


def upgrade(installed: Path) -> None:
    """Put the next version into the place of this one, as pip does: no file is written to, each is another."""
    shutil.move(installed, installed.with_name("old"))
    shutil.copytree(installed.with_name("old"), installed, ignore=shutil.ignore_patterns("__pycache__"))
    file = installed / "__init__.py"
    file.write_text(file.read_text().replace(asgictl.__version__, NEXT))


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.status()
    return found


def pids(machine: Machine) -> dict[str, set[int]]:
    """Return the processes of each role that are not about to end."""
    found: dict[str, set[int]] = {}
    for each in status(machine)["processes"]:
        if each["state"] in ("STARTING", "RUNNING"):
            found.setdefault(each["role"], set()).add(each["pid"])
    pid_file = machine.runtime / "asgictl" / "default" / "supervisord.pid"
    return found | {"supervisord": {int(pid_file.read_text())}}


def test_an_upgrade_replaces_all_but_supervisord_and_redis(machine: Machine, installed: Path) -> None:
    machine.start("deployed:app", "--workers", "2", "--interfaces", "2", "--release", "first")
    before = pids(machine)
    with Load(machine, 20) as load:
        deploy(machine, "two")
        upgrade(installed)
        done = machine.run("reload", "--all", "--release", "second", "--wait")
        assert done.returncode == 0, done.stderr
    assert load.wrong == []
    assert load.requests
    assert load.frames
    assert done.stdout == "reloaded everything\n"
    told = done.stderr.splitlines()
    assert told[0] == f"asgictl {NEXT} is installed"
    assert [line for line in told if line.startswith("starting")] == [
        *("starting 1 controller", "starting 1 interface", "starting 1 interface", "starting 2 workers")
    ]
    assert told[-2].startswith("supervisord is not replaced")
    assert told[-1].startswith("Redis is not replaced")
    after = pids(machine)
    assert after.keys() == before.keys()
    assert {role for role in after if after[role] & before[role]} == STAYING
    found = status(machine)
    assert found["version"] == NEXT
    assert {each["release"] for each in found["ready"] if each["role"] == "worker"} == {"second"}
    until(lambda: status(machine)["warnings"] == [], "all is well")
    assert served(machine) == b"two"


def test_an_upgrade_in_process_closes_sockets_with_1012(machine: Machine, installed: Path) -> None:
    machine.start("deployed:app", "--mode", "inprocess", "--workers", "1")
    before = pids(machine)
    with connect(machine.ws + "/ws") as ws:
        ws.send("a")
        assert ws.recv(SECONDS) == "1 a"
        upgrade(installed)
        done = machine.run("reload", "--all")
        assert done.returncode == 0, done.stderr
        assert closed_with(ws) == 1012
    assert "Redis is not replaced" not in done.stderr
    after = pids(machine)
    assert {role for role in after if after[role] & before[role]} == {"supervisord"}
    assert status(machine)["version"] == NEXT


@pytest.mark.parametrize("mode", MODES)
def test_an_upgrade_that_cannot_be_imported_changes_nothing(machine: Machine, installed: Path, mode: str) -> None:
    machine.start("deployed:app", "--mode", mode, "--workers", "1")
    before = pids(machine)
    (installed / "control" / "controller.py").write_text("import absent_module\n")
    done = machine.run("reload", "--all")
    assert done.returncode == 8
    assert "nothing has changed: ModuleNotFoundError: No module named 'absent_module'" in done.stderr
    assert pids(machine) == before
    assert served(machine) == b"one"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """asgictl with hand-over records of the version before."""
    copied = shutil.copytree(Path(asgictl.__file__).parent, tmp_path / "before" / "asgictl")
    for file, changes in BEFORE.items():
        source = (copied / file).read_text()
        for now, then in changes:
            assert source.count(now) == 1, f"{now!r} of {file}: say here how version {VERSION - 1} was"
            source = source.replace(now, then)
        (copied / file).write_text(source)
    return copied.parent


def test_sockets_move_to_the_next_release_and_back(before: Path, machine: Machine, tmp_path: Path) -> None:
    """Adjacent versions of a record, by an upgrade and by a return to the release before."""
    site, current = before, tmp_path / "current"
    shutil.copytree(Path(asgictl.__file__).parent, current / "asgictl")
    machine.directory = tmp_path
    machine.environment["PYTHONPATH"] = str(site)
    deploy(machine, "one", SITE)
    machine.start("deployed:app", "--workers", "1")
    with Load(machine, 20) as load:
        for place in ("current", "before"):
            shutil.move(site, tmp_path / "aside")
            shutil.move(current, site)
            shutil.move(tmp_path / "aside", current)
            done = machine.run("reload", "--all", "--wait")
            assert done.returncode == 0, (place, done.stderr)
    assert load.wrong == []
    assert load.frames
