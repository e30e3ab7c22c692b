"""What clients send to do harm: each row of tests/faults/hostile.py, in both modes, whole and byte by byte.

HTTP goes directly and through nginx, which refuses some by itself, and mends some: there nothing hidden may run, and no
answer may be lost or come twice.
"""

import re
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MODES, new_machine
from tests.faults.conftest import SECONDS, body_of, handshake, is_closed, request
from tests.faults.front import KEPT, demand, nginx
from tests.faults.hostile import CLOSE, CUT_OFF, HALF_CLOSED, HANDSHAKES, HTTP, SOCKETS, Frames, Row, close, get

APPLICATION = """
import os

from asgictl import Application, path


def site(environ, start_response):
    body = environ["wsgi.input"].read()
    name = environ["PATH_INFO"].encode("unicode_escape").decode()
    host = environ.get("HTTP_HOST", "a")
    note(f"{environ['REQUEST_METHOD']} {name} {len(body)}" + (f" {host}" if host != "a" else ""))
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


def note(line):
    noted = os.open("noted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(noted, line.encode() + b"\\n")
    os.close(noted)


def echo(message):
    message.reply(text=message.text) if message.data is None else message.reply(data=message.data)


app = Application(http=site, websocket=[path("/ws", receive=echo)])
"""
LAST = get(b"Connection: close\r\n", target=b"/last")
HEAD_BYTES = 50  # of a handshake's answer, at least
PIECES = 400  # in which a row is sent at most
WAITS_BEHIND_NGINX = {"chunks: trailers without end"}  # for their end
REFUSED_BY_NGINX = {"framing: CL in spaces", "targets: asterisk-form", "targets: a target that decodes badly"}
MENDED_BY_NGINX = {"targets: absolute-form of another Host", "targets: absolute-form of IPv6"}  # it sends on the Host
HOW = ["whole", "bytes"]


@dataclass(frozen=True, slots=True)
class Site:
    """An instance of APPLICATION, and nginx before it."""

    ports: dict[str, int]
    noted: Path
    barrier: bytes

    def ask(self, way: str, pieces: list[bytes], *, half_closes: bool = False) -> tuple[bytes, list[str]]:
        """Send pieces, and wait for the end of the connection; return what came, and what the application noted."""
        self.noted.write_text("")
        with socket.create_connection(("127.0.0.1", self.ports[way]), timeout=SECONDS) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            came = b""
            with suppress(ConnectionResetError, BrokenPipeError):  # it may be refused on the way
                for piece in pieces:
                    client.sendall(piece)
                if half_closes:
                    client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while part := client.recv(1 << 16):
                    came += part
        return came, self.ran()

    def ran(self) -> list[str]:
        """Return what the application noted until now: one thread runs requests in their order."""
        with socket.create_connection(("127.0.0.1", self.ports["directly"]), timeout=SECONDS) as client:
            client.sendall(self.barrier)
            while client.recv(1 << 16):
                pass
        *noted, barrier = self.noted.read_text().splitlines()
        assert barrier == "GET /barrier 0 x"
        return noted


@contextmanager
def site_of(mode: str, directory: Path) -> Iterator[Site]:
    (directory / "app.py").write_text(textwrap.dedent(APPLICATION))
    with new_machine() as machine, nginx(machine, directory, KEPT) as port:
        machine.directory = directory
        machine.start("app:app", "--mode", mode, "--workers", "1", "--threads", "1")
        yield Site({"directly": machine.port, "behind nginx": port}, directory / "noted", request(b"/barrier"))


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(request.param, tmp_path_factory.mktemp("site")) as made:
        yield made


def cut(data: bytes, how: str) -> list[bytes]:
    """Return the pieces in which a row is sent."""
    size = len(data) if how == "whole" else max(1, len(data) // PIECES)
    return [data[begin : begin + size] for begin in range(0, len(data), size or 1)]


def statuses(came: bytes) -> list[int]:
    """Return the statuses of the answers, those between aside."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", came) if int(status) != 100]


def expected(row: Row) -> tuple[list[int], list[str]]:
    """Return what is right for a row with another request behind it, which is the connection's last."""
    last = ([200], ["GET /last 0"]) if row.is_kept else ([], [])
    return [*row.statuses, *last[0]], [*row.ran, *last[1]]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("row", [*HTTP.values(), *HANDSHAKES.values()], ids=[*HTTP, *HANDSHAKES])
def test_each_request_is_answered_as_it_should_be(site: Site, row: Row, how: str) -> None:
    came, ran = site.ask("directly", [*cut(row.data, how), LAST])
    assert (statuses(came), ran) == expected(row)


@pytest.mark.parametrize("name", sorted(HTTP.keys() - WAITS_BEHIND_NGINX))
def test_nothing_hidden_runs_behind_nginx(site: Site, name: str) -> None:
    demand("behind nginx")
    row = HTTP[name]
    came, ran = site.ask("behind nginx", [row.data, LAST])
    assert not [each for each in ran if "forbidden" in each]
    assert statuses(came).count(200) == len(ran) or not came.startswith(b"HTTP/")  # as of HTTP/0.9
    assert not {500, 502, 503, 504} & set(statuses(came))
    if row.is_kept and name not in REFUSED_BY_NGINX | MENDED_BY_NGINX:
        assert (statuses(came), ran) == expected(row)


@pytest.mark.parametrize("row", HALF_CLOSED.values(), ids=HALF_CLOSED)
def test_a_client_may_close_its_side_behind_a_whole_request(site: Site, way: str, row: Row) -> None:
    came, ran = site.ask(way, [row.data], half_closes=True)
    if way == "directly":
        assert (statuses(came), ran) == (list(row.statuses), list(row.ran))
    else:  # nginx leaves a request of a client that has closed its side
        assert set(ran) <= set(row.ran)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return a server's whole frames, as opcode and payload."""
    found, at = [], 0
    while at + 2 <= len(data):
        first, size = data[at], data[at + 1]
        assert first & 0xF0 == 0x80, data[at : at + 16]
        begin = at + {126: 4, 127: 10}.get(size, 2)
        size = int.from_bytes(data[at + 2 : begin]) if begin > at + 2 else size
        at = begin + size
        if at <= len(data):
            found.append((first & 0x0F, data[begin:at]))
    return found


def talk(site: Site, pieces: list[bytes], row: Frames) -> bytes:
    """Send pieces, and a close once the application has said all that it is to say; return what came to the end."""
    with socket.create_connection(("127.0.0.1", site.ports["directly"]), timeout=SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionResetError, BrokenPipeError):  # it may close before it has read all
            for piece in pieces:
                client.sendall(piece)
        came, wanted = b"", HEAD_BYTES + sum(len(payload) for _, payload in row.said)
        closes = row.code is None
        with suppress(ConnectionResetError):
            while part := client.recv(1 << 16):
                came += part
                if closes and len(came) > wanted and len(frames_of(body_of(came))) == len(row.said):
                    client.sendall(close(1000))
                    closes = False
        return came


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("row", SOCKETS.values(), ids=SOCKETS)
def test_each_frame_is_answered_as_it_should_be(site: Site, row: Frames, how: str) -> None:
    site.noted.write_text("")
    shaken = handshake(b"/ws")
    came = talk(site, [shaken + row.data] if how == "whole" else [shaken, *cut(row.data, how)], row)
    assert statuses(came) == [101]
    *said, (opcode, payload) = frames_of(body_of(came))
    assert opcode == CLOSE
    assert said == row.said
    assert (int.from_bytes(payload[:2]) if payload else 1005) == (1000 if row.code is None else row.code)
    assert site.ran() == []


@pytest.mark.parametrize("data", CUT_OFF.values(), ids=CUT_OFF)
def test_a_socket_ends_with_its_client(site: Site, data: bytes) -> None:
    site.noted.write_text("")
    with socket.create_connection(("127.0.0.1", site.ports["directly"]), timeout=SECONDS) as client:
        client.sendall(handshake(b"/ws"))
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 101")
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert is_closed(client)
    assert site.ran() == []
