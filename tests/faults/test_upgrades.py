"""B1: an upgrade that is not taken is an ordinary request, whose body is a body; one table, directly and behind nginx.

What the application was asked is what it noted. A smuggled request would ask for /forbidden, which nginx refuses.
"""

import re
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import MODES, new_machine
from tests.faults.conftest import SECONDS
from tests.faults.front import UPGRADES, nginx

APPLICATION = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        note(f"WS {scope['path']}")
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    note(f"{scope['method']} {scope['path']} {len(body)} {body[:4].decode()}".strip())
    offered = b"\\n".join(value for name, value in scope["headers"] if name == b"upgrade")
    length = str(len(offered)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": offered})

def note(line):
    noted = os.open("noted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(noted, line.encode() + b"\\n")
    os.close(noted)
"""
SMUGGLED = "GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = "Connection: Upgrade\r\n"
LENGTH = f"Content-Length: {len(SMUGGLED)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
BODY = f"{len(SMUGGLED)} GET"
ORDINARY = {  # method and headers, the body as it is sent, and what the application notes of both
    "h2c with a body": ("POST", UPGRADE + "Upgrade: h2c\r\n" + LENGTH, SMUGGLED, BODY),
    "h2c with settings": (
        "GET",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        "",
        "0",
    ),
    "a list in Connection": ("POST", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n" + LENGTH, SMUGGLED, BODY),
    "two Connection": (
        "POST",
        "Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n" + LENGTH,
        SMUGGLED,
        BODY,
    ),
    "two Upgrade": ("PUT", UPGRADE + "Upgrade: h2c\r\nUpgrade: websocket\r\n" + LENGTH, SMUGGLED, BODY),
    "a list in Upgrade": ("PUT", UPGRADE + "Upgrade: websocket, h2c\r\n" + LENGTH, SMUGGLED, BODY),
    "chunks": ("POST", UPGRADE + "Upgrade: h2c\r\n" + CHUNKED, f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n", BODY),
    "an unknown protocol": ("DELETE", UPGRADE + "Upgrade: x/1\r\n" + LENGTH, SMUGGLED, BODY),
    "100-continue": ("POST", UPGRADE + "Upgrade: h2c\r\nExpect: 100-continue\r\n" + LENGTH, SMUGGLED, BODY),
    "POST of a WebSocket": ("POST", UPGRADE + "Upgrade: websocket\r\n" + KEY + LENGTH, SMUGGLED, BODY),
    "a handshake with a body": ("GET", UPGRADE + "Upgrade: websocket\r\n" + KEY + LENGTH, SMUGGLED, BODY),
    "a handshake with chunks": (
        *("GET", UPGRADE + "Upgrade: websocket\r\n" + KEY + CHUNKED),
        *(f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n", BODY),
    ),
    "a handshake without a key": ("GET", UPGRADE + "Upgrade: websocket\r\n", "", "0"),
    "no token in Connection": ("POST", "Connection: keep-alive\r\nUpgrade: h2c\r\n" + LENGTH, SMUGGLED, BODY),
}
HANDSHAKES = {
    "usual": UPGRADE + "Upgrade: websocket\r\n",
    "lists": "Connection: keep-alive, uPgrade\r\nUpgrade: WebSocket, h2c\r\n",
    "two lines each": "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
    "no length": UPGRADE + "Upgrade: websocket\r\nContent-Length: 0\r\n",
}
REFUSED = {
    "CONNECT": f"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n{LENGTH}\r\n{SMUGGLED}",
    "two framings": f"POST /x HTTP/1.1\r\nHost: a\r\n{UPGRADE}Upgrade: h2c\r\n{LENGTH}{CHUNKED}\r\n0\r\n\r\n{SMUGGLED}",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}
DIFFERENT = {  # docs/servers.md: they frame for themselves. The status of what is not an ordinary request to them.
    "daphne": {
        "POST of a WebSocket": 405,
        "a handshake with a body": 101,
        "a handshake with chunks": 101,
        "a handshake without a key": 400,
    },
    "hypercorn": {
        "h2c with settings": 101,
        "a handshake with a body": 400,
        "a handshake with chunks": 400,
        "a handshake without a key": 400,
    },
}
OTHER_SECONDS = 1.0  # hypercorn keeps the connection of a handshake that it has refused


@dataclass(frozen=True, slots=True)
class Edge:
    """An instance that serves APPLICATION, and nginx before it."""

    server: str
    ports: dict[str, int]
    noted: Path

    def ask(self, way: str, pieces: list[str], seconds: float = SECONDS) -> tuple[str, list[str]]:
        """Send pieces, wait for the end of the connection; return what came, and what the application noted.

        Raises TimeoutError when it does not end within SECONDS, if so long was waited.
        """
        self.noted.write_text("")
        with socket.create_connection(("127.0.0.1", self.ports[way]), timeout=seconds) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            came = b""
            try:
                for piece in pieces:
                    client.sendall(piece.encode())
                while part := client.recv(1 << 16):
                    came += part
            except (ConnectionResetError, BrokenPipeError):
                pass
            except TimeoutError:
                if seconds == SECONDS:
                    raise
        return came.decode("latin-1"), self.noted.read_text().splitlines()


@contextmanager
def edge_of(mode: str, server: str, directory: Path) -> Iterator[Edge]:
    (directory / "app.py").write_text(textwrap.dedent(APPLICATION))
    with new_machine() as machine, nginx(machine, directory, UPGRADES) as port:
        machine.directory = directory
        machine.start("app:app", "--mode", mode, "--server", server, "--workers", "1")
        yield Edge(server, {"directly": machine.port, "behind nginx": port}, directory / "noted")


@pytest.fixture(scope="module", params=MODES)
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge_of(request.param, "uvicorn", tmp_path_factory.mktemp("edge")) as made:
        yield made


@pytest.fixture(scope="module", params=DIFFERENT)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """What hosts itself with a parser of its own."""
    with edge_of("split", request.param, tmp_path_factory.mktemp("other")) as made:
        yield made


def statuses(came: str) -> list[int]:
    """Return the statuses of the answers, those between aside."""
    return [int(status) for status in re.findall(r"HTTP/1\.1 (\d+)", came) if int(status) != 100]


def cut(text: str, how: str) -> list[str]:
    """Return the pieces in which a request is sent."""
    places = {"whole": [], "head and body": [text.index("\r\n\r\n") + 4], "bytes": list(range(1, len(text)))}[how]
    return [text[begin:end] for begin, end in pairwise([0, *places, len(text)])]


@pytest.mark.parametrize("how", ["whole", "head and body", "bytes"])
@pytest.mark.parametrize("offer", ORDINARY)
def test_b1_an_offer_that_is_not_taken_is_ignored(edge: Edge, way: str, offer: str, how: str) -> None:
    """The request behind it on the connection is the next, and nothing else is."""
    method, headers, body, noted = ORDINARY[offer]
    behind = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    asked = f"{method} /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}"
    came, served = edge.ask(way, [*cut(asked, how), behind])
    assert served == [f"{method} /x {noted}", "GET /last 0"]
    assert statuses(came) == [200, 200]


@pytest.mark.parametrize("headers", HANDSHAKES.values(), ids=HANDSHAKES)
def test_b1_a_websocket_s_handshake_is_taken(edge: Edge, way: str, headers: str) -> None:
    with socket.create_connection(("127.0.0.1", edge.ports[way]), timeout=SECONDS) as client:
        client.sendall(f"GET /x HTTP/1.1\r\nHost: a\r\n{headers}{KEY}\r\n".encode())
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_b1_an_old_or_closing_client_s_offer_is_ignored(edge: Edge, way: str, version: str) -> None:
    connection = UPGRADE if version == "1.0" else "Connection: close, Upgrade\r\n"
    headers = f"{connection}Upgrade: h2c\r\n{LENGTH}"
    came, served = edge.ask(way, [f"POST /x HTTP/{version}\r\nHost: a\r\n{headers}\r\n{SMUGGLED}"])
    assert served == [f"POST /x {BODY}"]
    assert statuses(came) == [200]


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_b1_what_cannot_be_framed_is_refused(edge: Edge, way: str, request_: str) -> None:
    came, served = edge.ask(way, [request_])
    assert served == []
    assert all(400 <= status < 600 for status in statuses(came))


def test_b1_a_handshake_waits_for_the_response_before_it(edge: Edge) -> None:
    handshake = f"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\n"
    edge.noted.write_text("")
    with socket.create_connection(("127.0.0.1", edge.ports["directly"]), timeout=SECONDS) as client:
        client.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n" + handshake.encode())
        came = b""
        while b" 101 " not in came:
            part = client.recv(1 << 16)
            assert part, came
            came += part
    assert statuses(came.decode()) == [200, 200, 101]
    assert edge.noted.read_text().splitlines() == ["GET /1 0", "GET /2 0", "WS /x"]


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_b1_the_application_sees_what_was_offered(edge: Edge, offer: str) -> None:
    asked = f"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: {offer}\r\n{LENGTH}\r\n{SMUGGLED}"
    came, _ = edge.ask("directly", [asked])
    assert came.endswith("\r\n\r\n" + offer)


@pytest.mark.parametrize("offer", ORDINARY)
def test_b1_no_body_is_a_request_to_servers_with_their_own_parsers(other: Edge, way: str, offer: str) -> None:
    method, headers, body, noted = ORDINARY[offer]
    asked = f"{method} /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}"
    different = DIFFERENT[other.server].get(offer)
    behind = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    came, served = other.ask(way, [asked, behind], OTHER_SECONDS if different else SECONDS)
    assert not any("/forbidden" in line for line in served)
    if different:
        assert statuses(came)[0] in {different, 200}  # by how its bytes arrive
    else:
        assert served == [f"{method} /x {noted}", "GET /last 0"]
        assert statuses(came) == [200, 200]
