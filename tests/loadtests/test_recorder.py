"""Locust's users against small servers of the tests' own; in processes of their own, since gevent is."""

import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from asgictl.loadtests.comparison import USERS_FILE
from asgictl.loadtests.histogram import Histogram

pytestmark = pytest.mark.slow


def record(
    folder: Path, port: int, seconds: float, *arguments: str, grow: int = 0, limit: int = 0, patience: float = math.inf
) -> dict[str, Any]:
    """Return what a recorder wrote down. grow: to how many users after a third of the time. limit: of answers."""
    file = folder / "record"
    command = [sys.executable, "-P", "-m", "asgictl.loadtests.recorder", str(file), "0", str(seconds), str(grow)]
    command += [
        str(limit),
        str(patience),
        "-f",
        str(USERS_FILE),
        *arguments,
        "--headless",
        "--spawn-rate",
        "9",
        "--host",
        f"http://127.0.0.1:{port}",
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert float((folder / "record.begun").read_text()) == found["begin"]
    return found


def counted(found: dict[str, Any], name: str) -> Histogram:
    histogram = Histogram()
    for names in found["counts"].values():
        histogram.update({int(bucket): count for bucket, count in names.get(name, {}).items()})
    return histogram


@contextmanager
def http(stall_seconds: float) -> Iterator[int]:
    """A server that answers at once, but that stands still once, a second after its first request."""
    first = 0.0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal first
            first = first or time.monotonic()
            if 1 < (passed := time.monotonic() - first) < 1 + stall_seconds:
                time.sleep(1 + stall_seconds - passed)
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def websocket(handle: Any) -> Iterator[int]:
    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def test_a_stall_is_felt_by_every_request_that_was_due_meanwhile(tmp_path: Path) -> None:
    with http(0.6) as port:
        found = record(tmp_path, port, 3, "Hello", "--users", "4", "--rate", "50", "--path", "/x")
    requests = counted(found, "request")
    slow = sum(count for bucket, count in requests.items() if Histogram({bucket: 1}).percentile(50) > 0.1)
    assert slow >= 15, "of 4 users 4 were in flight, but 30 were due"
    assert found["missed"] >= 10
    assert max(found["gaps"].values()) >= 0.5
    assert 0 <= found["lateness"] < 5
    assert requests.total() <= 160, "the rate was kept"


def test_what_is_due_when_the_run_ends_counts_with_the_time_that_was_left(tmp_path: Path) -> None:
    with http(60) as port:  # it stands still from its second second on
        found = record(tmp_path, port, 3, "Hello", "--users", "2", "--rate", "20", "--path", "/x")
    unsent = counted(found, "unsent")
    assert unsent.total() >= 20, "of 40 starts a second's 20 were answered, and 2 timed out"
    assert 1 < unsent.percentile(100) <= 3
    assert {user for users in found["affected"].values() for user in users} == {0, 1}
    assert "unsent: was due and never sent" in found["errors"]


def test_failures_are_counted_and_named(tmp_path: Path) -> None:
    with http(0) as port:
        found = record(tmp_path, port, 1, "Hello", "--users", "1", "--path", "/missing")
    assert counted(found, "request").total() == 0
    assert sum(second["request"] for second in found["failed"].values()) > 0
    assert "404" in next(iter(found["errors"]))


def test_an_echo_that_is_another_is_a_failure_and_so_is_a_close(tmp_path: Path) -> None:
    def handle(connection: ServerConnection) -> None:
        for number, message in enumerate(connection, 1):
            connection.send("0" if number == 3 else message)
            if number == 5:
                connection.close(1012)

    with websocket(handle) as port:
        found = record(tmp_path, port, 1, "Echo", "--users", "1", "--rate", "100", "--ws-path", "/")
    failed = Counter[str]()
    for second in found["failed"].values():
        failed.update(second)
    assert counted(found, "message").total() > 0
    assert failed["message"] >= 1
    assert failed["close"] >= 1
    errors = list(found["errors"])
    assert any(error.startswith("message: sent 3, heard 0") for error in errors), errors
    assert "close: closed with 1012" in errors


def test_a_handshake_that_is_refused_is_a_failure_and_is_tried_again(tmp_path: Path) -> None:
    with http(0) as port:
        found = record(tmp_path, port, 1, "Idle", "--users", "1", "--ws-path", "/missing")
    assert sum(second["connect"] for second in found["failed"].values()) > 1
    assert "connect: handshake answered 404" in found["errors"]


def test_sockets_are_counted_before_and_after_there_are_more(tmp_path: Path) -> None:
    def handle(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with websocket(handle) as port:
        found = record(tmp_path, port, 3, "Idle", "--users", "2", "--ws-path", "/", grow=6)
    (warm, before), (end, after) = found["held"]
    assert (before, after) == (2, 6)
    assert warm < end


def test_a_ramp_climbs_for_half_the_time_and_then_holds(tmp_path: Path) -> None:
    code = (
        "import types\n"
        "from asgictl.loadtests.shapes import Ramp\n"
        "ramp = Ramp()\n"
        "options = types.SimpleNamespace(num_users=10, run_time=20)\n"
        "ramp.runner = types.SimpleNamespace(environment=types.SimpleNamespace(parsed_options=options))\n"
        "found = []\n"
        "for elapsed in (0, 5, 10, 19, 21):\n"
        "    ramp.get_run_time = lambda elapsed=elapsed: elapsed\n"
        "    found.append(ramp.tick() and ramp.tick()[0])\n"
        "print(found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[1, 5, 10, 10, None]"


def test_all_connect_again_at_one_moment(tmp_path: Path) -> None:
    connected: list[float] = []

    def handle(connection: ServerConnection) -> None:
        connected.append(time.time())
        for message in connection:
            connection.send(message)

    with websocket(handle) as port:
        found = record(tmp_path, port, 3, "Returning", "--users", "9", "--rate", "9", "--ws-path", "/")
    returns = counted(found, "return").total()
    assert 18 <= returns <= 36, "once a second, or the machine is slow"
    assert sum(found["begin"] <= at for at in connected) >= returns
    assert min(each % 1 for each in connected[9:]) < 0.5


def test_a_run_ends_after_so_many_answers(tmp_path: Path) -> None:
    with http(0) as port:
        found = record(tmp_path, port, 30, "Hello", "--users", "2", "--path", "/x", limit=100)
    assert counted(found, "request").total() >= 100
    assert found["seconds"] < 30
    assert len(found["held"]) == 1


def test_who_waits_longer_than_their_patience_is_affected(tmp_path: Path) -> None:
    with http(0.8) as port:
        found = record(tmp_path, port, 3, "Hello", "--users", "2", "--rate", "20", "--path", "/x", patience=0.4)
    assert {user for users in found["affected"].values() for user in users} == {0, 1}
    assert found["errors"] == {}
