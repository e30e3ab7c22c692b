"""An edge in memory: a backend that notes what it is asked, and clients that say bytes to it."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from asgictl.config import Limits
from asgictl.interface.edge import ClientRequest, ClientSocket, Deadlines, Edge
from asgictl.interface.edge_http import HTTPProtocol
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.asgi import BODILESS, Receive, Send
from asgictl.wire.messages import Accept, Close, Frame, Scope

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def post(size: int, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """Return the head of a request with a body of so many bytes."""
    more = b"".join(header + b"\r\n" for header in headers)
    return b"POST / HTTP/%b\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n" % (version, size, more)


def masked(first: int, payload: bytes = b"", *, key: bytes = b"\1\2\3\4") -> bytes:
    """Return a client's frame, by its first byte."""
    size = len(payload)
    if size <= 125:
        header = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        header = bytes((first, 0x80 | 126)) + size.to_bytes(2)
    else:
        header = bytes((first, 0x80 | 127)) + size.to_bytes(8)
    return header + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


class Asked:
    """A RequestHandler that notes what it is told."""

    def __init__(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> None:
        self.scope, self.body, self.length, self.more, self.client = scope, body, length, more, client
        self.parts: list[tuple[bytes, bool]] = []
        self.told: list[str] = []
        self.reads_on = False

    def received(self, data: bytes, more: bool) -> None:
        self.parts.append((data, more))
        if more and self.reads_on:
            self.client.want()

    def resumed(self) -> None:
        self.told.append("resumed")

    def gone(self) -> None:
        self.told.append("gone")

    def read(self) -> None:
        """Ask for all of the body."""
        self.reads_on = True
        self.client.want()

    @property
    def whole(self) -> bytes:
        return self.body + b"".join(data for data, _ in self.parts)

    def answer(self, body: bytes = b"hello", status: int = 200, **headers: bytes) -> None:
        fields = [(name.encode().replace(b"_", b"-"), value) for name, value in headers.items()]
        if status not in BODILESS and "content_length" not in headers:
            fields.append((b"content-length", b"%d" % len(body)))
        self.client.respond(status, fields, body, more=False)


class Opened:
    """A SocketHandler that notes what it is told."""

    def __init__(self, scope: Scope, client: ClientSocket) -> None:
        self.scope, self.client = scope, client
        self.frames: list[Frame] = []
        self.told: list[object] = []
        self.takes: Callable[[Frame], None] = lambda _frame: None

    def receive(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.takes(frame)

    def resumed(self) -> None:
        self.told.append("resumed")

    def left(self, code: int, reason: str) -> None:
        self.told.append((code, reason))

    def accept(self, subprotocol: str | None = None, *headers: tuple[bytes, bytes]) -> None:
        self.client.accept(Accept(subprotocol, list(headers)))

    def close(self, code: int = 1000, reason: str = "", **refusal: Any) -> None:
        self.client.close(Close(code, reason, **refusal))


class Backend:
    """Answers requests as it is told, else not at all; and accepts sockets at once, or not at all."""

    def __init__(
        self, answers: Callable[[Asked], None] = lambda _asked: None, *, accepts: bool = True, **limits: Any
    ) -> None:
        self.limits = Limits(**limits)
        self.figures = Figures()
        self.rejections = Rejections()
        self.asked: list[Asked] = []
        self.opened: list[Opened] = []
        self.answers = answers
        self.accepts = accepts

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> Asked:
        self.asked.append(Asked(scope, body, length, more, client))
        asked = self.asked[-1]
        self.answers(asked)
        return asked

    def websocket(self, scope: Scope, client: ClientSocket) -> Opened:
        self.opened.append(Opened(scope, client))
        if self.accepts:
            self.opened[-1].accept()
        return self.opened[-1]

    async def lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})


class Socket:
    """Has addresses."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.options: list[tuple[int, int]] = []

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.1", 5000

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 80

    def setsockopt(self, level: int, option: int, _value: bytes) -> None:
        self.options.append((level, option))

    def fileno(self) -> int:
        return 1000


class Transport:
    """Keeps what is written, and notes what else it is told; tells of its end in the loop's next turn."""

    def __init__(self, protocol: Any, *, is_secure: bool = False) -> None:
        self.protocol = protocol
        self.socket = Socket()
        self.is_secure = is_secure
        self._data = b""
        self.told: list[str] = []
        self.is_reading = True
        self.has_ended = self.is_lost = False
        self.waiting = 0  # bytes that a client has not taken
        self.unread = b""

    @property
    def data(self) -> bytes:
        """What was written; the edge writes at the end of a turn, and of this one now."""
        self.protocol.edge.flush()
        return self._data

    @data.setter
    def data(self, data: bytes) -> None:
        self._data = data

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self.socket, "sslcontext": object() if self.is_secure else None}[name]

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.has_ended

    def write(self, data: bytes) -> None:
        assert not self.is_lost, "it wrote to a connection that is lost"
        self._data += data

    def can_write_eof(self) -> bool:
        return not self.is_secure

    def write_eof(self) -> None:
        self.told.append("eof")

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def _end(self, how: str) -> None:
        self.told.append(how)
        if not self.has_ended:
            self.has_ended = True
            asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        if not self.is_lost:
            self.has_ended = self.is_lost = True
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        if self.is_reading and self.unread and not self.has_ended:
            data, self.unread = self.unread, b""
            self.protocol.data_received(data)


class Client:
    """One connection to a server; it reads on while that takes what it says."""

    def __init__(self, server: "Server", *, is_secure: bool = False) -> None:
        protocol = server.protocol()
        self.transport = Transport(protocol, is_secure=is_secure)
        protocol.connection_made(self.transport)  # type: ignore[arg-type]

    @property
    def protocol(self) -> Any:
        return self.transport.protocol

    def says(self, *pieces: bytes) -> None:
        """Send bytes, each in a segment of its own."""
        for piece in pieces:
            self.transport.unread += piece
            self.transport.deliver()

    def hears(self) -> bytes:
        """Return what came since this was asked last."""
        data, self.transport.data = self.transport.data, b""
        return data

    @property
    def status(self) -> int:
        return int(self.transport.data.split(b" ", 2)[1]) if self.transport.data else 0

    @property
    def body(self) -> bytes:
        return self.transport.data.partition(b"\r\n\r\n")[2]

    @property
    def is_ended(self) -> bool:
        """Whether the server has closed its side."""
        return bool(self.transport.told)

    def leaves(self) -> None:
        self.transport.lose()

    def stops_reading(self, waiting: int = 1) -> None:
        self.transport.waiting = waiting
        self.protocol.pause_writing()

    def reads_again(self) -> None:
        self.transport.waiting = 0
        self.protocol.resume_writing()


class Server:
    """An edge, and what uvicorn gives it. settings: of uvicorn.Config."""

    def __init__(self, backend: Backend, trusted: str = "", **settings: Any) -> None:
        self.backend = backend
        self.edge = Edge(backend, trusted)
        self.config = uvicorn.Config(
            self.edge, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False, ws="none", **settings
        )
        self.config.load()
        self.state = ServerState()

    def connect(self, *, is_secure: bool = False) -> Client:
        return Client(self, is_secure=is_secure)

    def protocol(self) -> HTTPProtocol:
        """Return a protocol as uvicorn makes it."""
        return HTTPProtocol(config=self.config, server_state=self.state, app_state={}, _loop=None)

    def passes(self, deadlines: Deadlines, seconds: float) -> None:
        """Let so much time pass for what is due."""
        deadlines.check(self.edge.loop.time() + seconds)

    def drains(self) -> None:
        """Stop, as uvicorn_server.EdgeServer does."""
        self.draining = self.edge.drain()
        for connection in list(self.state.connections):
            connection.shutdown()

    @property
    def rejections(self) -> dict[str, int]:
        return self.backend.rejections.snapshot()


def hello(asked: Asked) -> None:
    """Answer at once."""
    asked.answer()


def connected(
    answers: Callable[[Asked], None] = lambda _asked: None, *, accepts: bool = True, **limits: Any
) -> tuple[Server, Backend, Client]:
    """Return a server with a client."""
    backend = Backend(answers, accepts=accepts, **limits)
    server = Server(backend)
    return server, backend, server.connect()


def opened(fragments: int = 1024, **settings: Any) -> tuple[Server, Client, Opened]:
    """Return a socket that is open, and its client, which has read its handshake's answer."""
    server = Server(Backend(fragments=fragments), **settings)
    client = server.connect()
    client.says(HANDSHAKE)
    client.hears()
    return server, client, server.backend.opened[0]


def waiting(data: bytes = HANDSHAKE) -> tuple[Server, Client, Opened]:
    """Return a socket whose handshake is not answered yet."""
    server, backend, client = connected(accepts=False)
    client.says(data)
    return server, client, backend.opened[0]
