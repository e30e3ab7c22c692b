"""A process's line to the controller."""

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgictl.errors import TargetError
from asgictl.readiness import SOCKET, Readiness


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long; a relative one always fits
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(SOCKET)
        made.listen()
        made.settimeout(10)
        yield made


def test_a_process_that_nobody_supervises_tells_nobody() -> None:
    readiness = Readiness(None, "worker", "worker-00")
    readiness.starting()
    readiness.ready(id="x")
    readiness.failed(TargetError("no"))


def test_reports_share_one_line_that_stays_open(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that reads a socket keeps it open when another closes it; and this one would outlive the test.
    monkeypatch.setattr(Readiness, "_keep", lambda self, report: None)
    readiness = Readiness(Path(), "worker", "worker-00")
    readiness.ready(threads=2)
    line, _ = listener.accept()
    with line, line.makefile("rb") as file:
        first = json.loads(file.readline())
        readiness.failed(TargetError("no such module"))
        second = json.loads(file.readline())
        who = {"role": "worker", "process": "worker-00", "pid": os.getpid()}
        assert first.pop("file_limit") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert first == {**who, "state": "ready", "threads": 2}
        assert second == {**who, "state": "failed", "reason": "no such module", "exit_code": 3}
        assert readiness._socket is not None
        readiness._socket.close()
        assert file.readline() == b""
