"""What tests of faults share: an application of a few lines in either mode, and bytes on a socket."""

import os
import shutil
import signal
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODES, Machine, new_machine
from tests.faults.front import WAYS, demand

Serve = Callable[..., Machine]
Site = Callable[[str], Machine]
SECONDS = 60.0  # for which a raw client waits
QUIET_SECONDS = 0.15  # in which what was logged is written
HANG_SECONDS = 30.0  # after which a test calls it a hang, of what is answered in milliseconds


both_modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each way to an instance; the test is skipped behind nginx where there is none."""
    chosen: str = request.param
    demand(chosen)
    return chosen


@pytest.fixture
def serve(machine: Machine, tmp_path: Path) -> Serve:
    """Return a function that starts `source`, the text of app.py whose `app` is served, and returns the machine."""

    def start(source: str, *arguments: str, mode: str = "split", target: str = "app:app") -> Machine:
        (tmp_path / "app.py").write_text(textwrap.dedent(source))
        machine.directory, machine.mode = tmp_path, mode
        machine.start(target, "--mode", mode, *arguments)
        return machine

    return start


def kill(machine: Machine) -> None:
    """Kill every process of an instance that a test keeps from stopping, and remove its run directory."""
    while pids := machine.pids():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(machine.runtime / "asgictl", ignore_errors=True)


def site_of(source: str, *arguments: str, target: str = "app:app", hangs: bool = False) -> Any:
    """Make a module's fixture: a function of a mode that returns the instance of `source` in it, shared by its tests.

    hangs: whether tests leave sockets that would keep it from stopping: it is killed.
    An instance that does not start is no AssertionError: no mark of `later` covers it.
    """

    @pytest.fixture(scope="module")
    def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
        directory = tmp_path_factory.mktemp("site")
        (directory / "app.py").write_text(textwrap.dedent(source))
        with ExitStack() as instances:

            @cache
            def start(mode: str) -> Machine:
                machine = instances.enter_context(new_machine())
                machine.directory, machine.mode = directory, mode
                done = machine.run(
                    "start", target, "--mode", mode, *arguments, "--bind", f"127.0.0.1:{machine.port}", "-d"
                )
                if done.returncode:
                    raise RuntimeError(done.stdout + done.stderr)
                if hangs:
                    instances.callback(kill, machine)
                return machine

            yield start

    return site


def exchange(machine: Machine, data: bytes, seconds: float = SECONDS) -> bytes:
    """Send bytes on a connection of their own; return what came until the server closed, or nothing more did."""
    with socket.create_connection(("127.0.0.1", machine.port), timeout=seconds) as client:
        client.sendall(data)
        received = b""
        try:
            while part := client.recv(1 << 16):
                received += part
        except (TimeoutError, ConnectionResetError):
            pass
        return received


def head(machine: Machine, data: bytes, seconds: float = HANG_SECONDS) -> bytes:
    """Send bytes on a connection of their own; return the head of the response, or less when that is all in time."""
    with socket.create_connection(("127.0.0.1", machine.port), timeout=seconds) as client:
        client.sendall(data)
        received = b""
        try:
            while b"\r\n\r\n" not in received and (part := client.recv(1 << 16)):
                received += part
        except (TimeoutError, ConnectionResetError):
            pass
        return received.partition(b"\r\n\r\n")[0]


def request(path: bytes, *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    """Return the bytes of a request after whose response the server closes."""
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def handshake(path: bytes, *headers: bytes) -> bytes:
    """Return the bytes of a WebSocket's handshake (RFC 6455, section 4.1)."""
    lines = [b"GET %b HTTP/1.1" % path, b"Host: x", b"Connection: Upgrade", b"Upgrade: websocket"]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frames(*texts: str) -> bytes:
    """Return short text frames as a client sends them, masked with zeros (RFC 6455, section 5.2)."""
    return b"".join(b"\x81%c\0\0\0\0%b" % (0x80 | len(each), each.encode()) for each in texts)


def status_of(answer: bytes) -> int:
    """Return a response's status; 0 when none came."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


def body_of(answer: bytes) -> bytes:
    """Return what follows a response's headers."""
    return answer.partition(b"\r\n\r\n")[2]


def is_closed(client: socket.socket, seconds: float = SECONDS) -> bool:
    """Whether the server closes a connection within so long; what it says before is read and dropped."""
    client.settimeout(seconds)
    try:
        while client.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def logged(machine: Machine) -> str:
    """Return what the instance's processes have logged, once no more comes: supervisord writes it, a little later."""
    directory = machine.runtime / "asgictl" / "default" / "log"
    text, before = "", "-"
    while text != before:
        time.sleep(QUIET_SECONDS)
        before, text = text, "".join(each.read_text() for each in sorted(directory.glob("*.log")))
    return text


def readiness(machine: Machine) -> tuple[int, str]:
    """Ask /readyz."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(60)
        line.connect(f"{machine.runtime}/asgictl/default/admin.sock")
        connection = HTTPConnection("localhost")
        connection.sock = line
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read().decode()
