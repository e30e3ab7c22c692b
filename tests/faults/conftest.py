"""What the rows of faults share: an application of a few lines in either mode, and bytes on a socket."""

import socket
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MODES, Machine

Serve = Callable[..., Machine]
SECONDS = 5.0  # for which a raw client waits


def later(issue: str, row: str) -> pytest.MarkDecorator:
    """Mark a row that another issue mends: whoever mends it finds the test passing, and takes the mark away."""
    return pytest.mark.xfail(strict=True, reason=f"{row}: {issue}")


both_modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def serve(machine: Machine, tmp_path: Path) -> Serve:
    """Return a function that starts `source`, the text of app.py whose `app` is served, and returns the machine."""

    def start(source: str, *arguments: str, mode: str = "split", target: str = "app:app") -> Machine:
        (tmp_path / "app.py").write_text(textwrap.dedent(source))
        machine.directory, machine.mode = tmp_path, mode
        machine.start(target, "--mode", mode, *arguments)
        return machine

    return start


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
