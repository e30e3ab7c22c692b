"""A3: a disk without room costs lines of logs; no process, no socket and no message."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from benchmarks.numbered import Load
from tests.conftest import MODES, Machine, new_machine, until

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
NOISY = """
import logging
from asgictl import Application
from benchmarks import numbered

logger = logging.getLogger("noisy")

def view(environ, start_response):
    logger.warning("%s %s", environ["PATH_INFO"], "x" * 3000)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = Application(http=view, websocket=numbered.app.routes)
"""


@pytest.fixture(params=MODES)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """An instance whose run directory is on a disk of 60 MiB."""
    if os.geteuid():
        pytest.skip("NOT RUN: only root mounts")
    with new_machine() as made:
        made.mode, made.directory = request.param, tmp_path
        (tmp_path / "noisy.py").write_text(NOISY)
        made.environment |= {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", made.runtime], check=True)
        try:
            made.start("noisy:app", "--mode", made.mode, "--workers", "2", "--log-file-mib", "1")
            yield made
        finally:
            made.stop()
            subprocess.run(["umount", "--lazy", made.runtime], check=True)


class Filled:
    """The disk is full, from `with` to its end."""

    def __init__(self, machine: Machine) -> None:
        self._file = machine.runtime / "fill"

    def __enter__(self) -> None:
        with self._file.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(MIB))

    def __exit__(self, *_: object) -> None:
        self._file.unlink()


def processes(machine: Machine) -> dict[str, int]:
    found = machine.status()
    assert all(each["ready"] or each["role"] in {"redis", "controller", "server"} for each in found["processes"])
    return {each["process"]: each["pid"] for each in found["processes"]}


def served(machine: Machine, path: str = "/") -> bool:
    with urlopen(machine.url + path, timeout=60) as answered:
        return bool(answered.status == 200)


def test_logs_stop_and_processes_live(small: Machine) -> None:
    before, supervisord = processes(small), (small.runtime / "asgictl/default/supervisord.pid").read_text()
    with Load(small.url, sockets=10, listeners=0) as load:
        until(lambda: load.messages > 50, "it flows")
        with Filled(small):
            assert small.run("status").returncode == 0
            if small.mode == "inprocess":  # it needs no Redis for that
                assert all(served(small, "/full") for _ in range(300))
            os.kill(int(supervisord), 0)
        goal = load.messages + 100
        until(lambda: load.messages > goal or load.wrong, "it flows again")
    assert load.wrong == []
    assert processes(small) == before
    assert served(small, "/after")
    slot = "server-00" if small.mode == "inprocess" else "worker-00"
    name = "worker-01" if slot == "worker-00" else slot
    until(lambda: served(small, "/after") and "/after" in small.log(slot) + small.log(name), "logs go on")


@pytest.mark.soak
def test_a_disk_that_is_full_for_ten_seconds_costs_no_socket_and_no_message(small: Machine) -> None:
    before = processes(small)
    with Load(small.url, sockets=50) as load:
        until(lambda: load.messages > 500, "it flows")
        with Filled(small), suppress(subprocess.TimeoutExpired):
            subprocess.run(["sleep", "60"], timeout=10, check=False)
        goal = load.messages + 1000
        until(lambda: load.messages > goal or load.wrong, "it flows again")
    assert load.wrong == []
    assert processes(small) == before
    assert small.run("stop").returncode == 0
