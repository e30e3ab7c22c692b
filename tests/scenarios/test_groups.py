"""Groups through real processes: one member that does not read, and pages of other origins."""

import socket
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS

APPLICATION = """
from asgictl import Application, Group, path

def join(message):
    message.accept()
    message.join("all")

def say(message):
    Group("all").send(text=message.text, if_slow=message.params["policy"])

app = Application(websocket=[path("/{policy}", connect=join, receive=say)])
"""
READERS = 20
BURST = 16
FRAME = "x" * (64 << 10)


@pytest.fixture(params=MODES)
def talk(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> Machine:
    machine.directory, machine.mode = tmp_path, request.param
    (tmp_path / "talk.py").write_text(APPLICATION)
    return machine


def rejections(machine: Machine) -> dict[str, int]:
    found: dict[str, int] = machine.status()["shed"]
    return found


def small_socket(port: int) -> socket.socket:
    """A socket for which the kernel holds little."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    return peer


def hear_until(slow: ClientConnection, last: int) -> tuple[list[int], int]:
    """Return the numbers up to `last`, or up to the socket's end, and the close code, 0 for none."""
    heard: list[int] = []
    try:
        while not heard or heard[-1] < last:
            heard.append(int(slow.recv(SECONDS).split()[0]))
    except ConnectionClosed as closed:
        return heard, closed.rcvd.code if closed.rcvd else 1006
    return heard, 0


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("close", "sockets closed with 1013: the client reads too slowly"),
        ("drop", "group frames dropped: the client reads too slowly"),
    ],
)
def test_a_member_that_does_not_read_holds_nobody_up(talk: Machine, policy: str, reason: str) -> None:
    talk.start("talk:app", "--mode", talk.mode, "--workers", "1")
    with ExitStack() as stack:
        url = f"{talk.ws}/{policy}"
        slow = stack.enter_context(connect(url, sock=small_socket(talk.port), max_queue=1))
        readers = [stack.enter_context(connect(url, max_queue=None)) for _ in range(READERS)]
        numbers = count()

        def is_shed_after_a_burst() -> bool:
            sent = [f"{next(numbers)} {FRAME}" for _ in range(BURST)]
            for frame in sent:
                readers[0].send(frame)
            for reader in readers:
                assert [reader.recv(SECONDS) for _ in range(BURST)] == sent, "whoever reads gets everything, in order"
            return reason in rejections(talk)

        until(is_shed_after_a_burst, "the reader's queue is full", 60)
        last = next(numbers)
        readers[0].send(f"{last}")  # small enough for what is left of its queue
        heard, code = hear_until(slow, last)
        if policy == "close":
            assert (code, heard) == (1013, list(range(len(heard))))
        else:
            assert (code, heard) == (0, sorted(set(heard)))
        assert len(heard) < last + 1, "of numbers that begin with 0"


def test_pages_of_other_origins_open_no_socket(talk: Machine) -> None:
    def opens(origin: Any) -> int:
        try:
            with connect(f"{talk.ws}/drop", origin=origin):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    talk.start("talk:app", "--mode", talk.mode, "--workers", "1")
    assert [opens(origin) for origin in (None, talk.url, "http://127.0.0.1", "null")] == [101, 101, 403, 403]
    until(lambda: rejections(talk) == {"handshakes rejected with 403: Origin not allowed": 2}, "both are counted")
    talk.stop()
    allowed = ("--allowed-origins", "https://*.example.com", "--allowed-origins", "http://other")
    talk.start("talk:app", "--mode", talk.mode, "--workers", "1", *allowed)
    origins = ("https://a.example.com", "http://other", talk.url, "https://example.org")
    assert [opens(origin) for origin in origins] == [101, 101, 403, 403]
