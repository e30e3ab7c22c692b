"""A process's line to the controller."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from asgictl.errors import TargetError
from asgictl.telemetry.controller_client import SOCKET, Readiness, ask
from asgictl.telemetry.metrics import Figures


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long; a relative one always fits
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(SOCKET)
        made.listen()
        made.settimeout(60)
        yield made


def test_a_process_that_nobody_supervises_tells_nobody() -> None:
    readiness = Readiness(None, "worker", "worker-00")
    readiness.starting()
    readiness.ready(id="x")
    readiness.failed(TargetError("no"))


def test_an_answer_that_was_cut_short_is_an_os_error(listener: socket.socket) -> None:
    def answer() -> None:
        line, _ = listener.accept()
        with line:
            assert line.recv(100) == b'{"ask": "status"}\n'
            line.sendall(b'{"ready": [')

    controller = threading.Thread(target=answer)
    controller.start()
    with pytest.raises(ConnectionResetError):
        ask(Path(), "status")
    controller.join()


def test_figures_follow_the_report_on_the_same_line(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        """Else it would connect anew, for ever."""

    def end(_seconds: float) -> None:
        raise Ended

    clock = SimpleNamespace(sleep=end, process_time=time.process_time, monotonic=time.monotonic)
    monkeypatch.setattr("asgictl.telemetry.controller_client.time", clock)
    readiness = Readiness(Path(), "worker", "worker-00")
    readiness.amend(state="ready", threads=2)
    readiness._count = lambda: Figures(events=7)

    def push() -> None:
        with suppress(Ended):
            readiness._keep()

    pushing = threading.Thread(target=push)
    pushing.start()
    line, _ = listener.accept()
    with line, line.makefile("rb") as file:
        assert json.loads(file.readline())["threads"] == 2
        for _ in range(2):
            pushed = json.loads(file.readline())["figures"]
            assert pushed["events"] == 7
            assert pushed["cpu_seconds"] > 0
    pushing.join()


def test_reports_share_one_line_that_stays_open(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that reads a socket keeps it open when another closes it; and this one would outlive the test.
    monkeypatch.setattr(Readiness, "_keep", lambda self: None)
    readiness = Readiness(Path(), "worker", "worker-00")
    readiness.ready(threads=2)
    line, _ = listener.accept()
    with line, line.makefile("rb") as file:
        first = json.loads(file.readline())
        readiness.amend(threads=3)
        amended = json.loads(file.readline())
        assert amended == {**first, "threads": 3}
        readiness.failed(TargetError("no such module"))
        second = json.loads(file.readline())
        who = {"role": "worker", "process": "worker-00", "pid": os.getpid()}
        assert first.pop("file_limit") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert first == {**who, "state": "ready", "threads": 2}
        assert second == {**who, "state": "failed", "reason": "no such module", "exit_code": 3}
        assert readiness._socket is not None
        readiness._socket.close()
        assert file.readline() == b""


def test_a_process_that_ends_in_order_says_what_it_counted_last(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "_keep", lambda self: None)
    readiness = Readiness(Path(), "interface", "interface-00")
    readiness.ready(lambda: Figures(moved=5, requests={200: 1}))
    line, _ = listener.accept()
    with line, line.makefile("rb") as file:
        file.readline()
        readiness._finish()
        said = json.loads(file.readline())
        assert (said["state"], said["figures"]["moved"], said["figures"]["requests"]) == ("ending", 5, {"200": 1})
        assert readiness._socket is not None
        readiness._socket.close()


def test_who_runs_alone_hears_what_a_controller_would_be_told() -> None:
    heard: list[dict[str, object]] = []
    Readiness(None, "interface", "interface", alone=heard.append).ready(channels=["x"])
    assert [each["channels"] for each in heard] == [["x"]]


ALONE = """
import os, sys, time
from asgictl.telemetry.controller_client import Readiness
Readiness(None, "worker", "worker", silent_seconds=1.0).ready()
{}
"""


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that is ready and that nobody supervises."""
    return subprocess.run([sys.executable, "-c", ALONE.format(code)], capture_output=True, text=True, timeout=60)


def test_a_process_that_is_alone_ends_when_its_code_holds_the_gil() -> None:
    done = alone("import ctypes\ndef held(): ctypes.PyDLL(None).sleep(20)\nheld()")
    assert done.returncode == 1
    assert "in held" in done.stderr


@pytest.mark.slow
def test_a_process_that_only_waits_or_computes_goes_on() -> None:
    done = alone("time.sleep(1.5)\nbegan = time.monotonic()\nwhile time.monotonic() < began + 1.5: pass")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_forked_child_is_not_watched_and_ends_in_order() -> None:
    fork = "pid = os.fork()\nif not pid:\n    {}\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    assert alone(fork.format("sys.exit(7)")).returncode == 7
    grandchild = "os.fork() and os.wait(); import ctypes; ctypes.PyDLL(None).sleep(2); sys.exit(6)"
    assert alone(fork.format(grandchild)).returncode == 6
