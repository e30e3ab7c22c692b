"""Each server serves what it hosts, and ends in order."""

import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgictl.config import SERVERS
from tests.conftest import free_port, is_listening, until

pytestmark = pytest.mark.slow

SECONDS = 60
BACKEND = """
    import logging, os, socket, sys
    from asgictl.config import Limits
    from asgictl.interface.hosting import host
    from asgictl.telemetry.metrics import Figures
    from asgictl.telemetry.rejections import Rejections
    from asgictl.wire.messages import Accept

    def say(line):  # Twisted takes sys.stdout
        os.write(1, line.encode() + b"\\n")

    class Request:
        def gone(self):
            say("gone")

    class Socket:
        def __init__(self, client):
            self.client = client
            client.accept(Accept(None, []))

        def receive(self, frame):
            self.client.frame(frame)

        def resumed(self):
            pass

        def left(self, code, reason):
            say(f"socket closed {code}")

    class Backend:
        limits = Limits(drain_seconds=5, shutdown_delay_seconds=60 if "delayed" in sys.argv else 0)
        figures = Figures()
        rejections = Rejections()

        def http(self, scope, body, length, more, client):
            client.respond(200, [], scope.root_path.encode(), more=False)
            return Request()

        def websocket(self, scope, client):
            return Socket(client)

        async def lifespan(self, receive, send):
            await receive()
            if "broken" in sys.argv:
                await send({"type": "lifespan.startup.failed", "message": "no database"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            say("shut down")
            await send({"type": "lifespan.shutdown.complete"})

    logging.basicConfig()
    _, server, port, *_ = sys.argv
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=5)
    has_started = host(Backend(), listener, server, "127.0.0.1", "/below", {})
    say("had started" if has_started else "had not started")
"""


@contextmanager
def hosted(directory: Path, server: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the backend on a server in a process of its own; yields it and its port."""
    (directory / "hosts.py").write_text(textwrap.dedent(BACKEND))
    port = free_port()
    command = [sys.executable, str(directory / "hosts.py"), server, str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, port
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)  # what it has covered is written at its end
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_serves_both_protocols_and_closes_sockets_once_it_is_told_to_end(server: str, tmp_path: Path) -> None:
    with hosted(tmp_path, server) as (process, port):
        until(lambda: is_listening(port), "a listener", SECONDS)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/below/a", timeout=SECONDS) as response:
            assert (response.status, response.read()) == (200, b"/below")
        with connect(f"ws://127.0.0.1:{port}/below/ws") as ws:
            ws.send("x")
            assert ws.recv(SECONDS) == "x"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed, match="1012"):
                ws.recv(SECONDS)
        said, errors = process.communicate(timeout=SECONDS)
    assert said.split("\n")[:3] == ["socket closed 1012", "shut down", "had started"], errors
    assert process.returncode == 0


@pytest.mark.parametrize("server", SERVERS)
def test_a_backend_that_cannot_start_is_not_served(server: str, tmp_path: Path) -> None:
    with hosted(tmp_path, server, "broken") as (process, _):
        said, errors = process.communicate(timeout=SECONDS)
    # uvicorn ends the process by itself.
    assert (said, process.returncode) == (("", 3) if server == "uvicorn" else ("had not started\n", 0))
    assert "no database" in errors


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_serves_on_for_its_delay_unless_it_is_told_again(server: str, tmp_path: Path) -> None:
    with hosted(tmp_path, server, "delayed") as (process, port):
        until(lambda: is_listening(port), "a listener", SECONDS)
        with connect(f"ws://127.0.0.1:{port}/below/ws") as ws:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(TimeoutError):
                ws.recv(1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/below/a", timeout=SECONDS) as response:
                assert response.status == 200
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed, match="1012"):
                ws.recv(SECONDS)
        said, _ = process.communicate(timeout=SECONDS)
    assert said.endswith("had started\n")
