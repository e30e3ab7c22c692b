"""A server around one connection of the edge's: an event loop whose time is set, a transport, and a backend."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

from uvicorn.server import ServerState

from asgictl.config import Limits
from asgictl.interface.edge import ClientRequest, ClientSocket, Edge
from asgictl.interface.edge_http import HTTPProtocol
from asgictl.interface.limits import READ_AHEAD_BYTES, SLICE_BYTES
from asgictl.wire.messages import POLICY_VIOLATION, Accept, Close, Frame, Headers, Scope

LATER_SECONDS = 0.1
STEP_SECONDS, STEPS = 2.5, 50  # in which all deadlines of an edge pass
PING_SECONDS = 20.0
MESSAGE_BYTES = 1 << 20
HIGH_WATER = 64 << 10
TURNS = 12  # of the event loop, in which a connection has done what it can do now
PEER, OWN = ("192.0.2.1", 1234), ("192.0.2.2", 80)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that runs turn by turn, with a time of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        """Return the time as it is set."""
        return self.now

    def turn(self, times: int = 1) -> None:
        """Run what is ready."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()


class Peer:
    """What a connection asks its socket."""

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        """Return the client's address."""
        return PEER

    def getsockname(self) -> tuple[str, int]:
        """Return the server's address."""
        return OWN

    def setsockopt(self, *_: object) -> None:
        """Take any option."""

    def fileno(self) -> int:
        """Return a descriptor that is never ready."""
        return 0


class Transport(asyncio.Transport):
    """Notes what a connection writes. is_slow: its client reads only when drain() is called."""

    def __init__(self, loop: Loop, is_slow: bool) -> None:
        super().__init__({"socket": Peer()})
        self.loop = loop
        self.is_slow = is_slow
        self.protocol: Any = None
        self.out = bytearray()
        self.waiting = 0
        self.reads = True
        self.is_lost = self.is_aborted = self.has_ended = self._is_closing = self._is_full = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what comes to another."""
        self.protocol = protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once all is written."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Whether the connection is to be given what comes."""
        return self.reads and not self._is_closing

    def pause_reading(self) -> None:
        """Read no more."""
        assert self.reads, "paused twice"
        self.reads = False

    def resume_reading(self) -> None:
        """Read again."""
        assert not self.reads, "resumed twice"
        self.reads = True

    def write(self, data: Any) -> None:
        """Note what is written."""
        assert not self.has_ended, "written behind the end"
        if self._is_closing:
            return
        self.out += data
        if self.is_slow:
            self.waiting += len(data)
            if self.waiting > HIGH_WATER and not self._is_full:
                self._is_full = True
                self.protocol.pause_writing()

    def drain(self) -> None:
        """Take what waits, as a client that reads."""
        self.waiting = 0
        if self._is_full:
            self._is_full = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose()

    def get_write_buffer_size(self) -> int:
        """Return how much waits."""
        return self.waiting

    def can_write_eof(self) -> bool:
        """Whether its side alone can be closed."""
        return True

    def write_eof(self) -> None:
        """Close this side."""
        self.has_ended = True

    def close(self) -> None:
        """Close behind what waits."""
        self._is_closing = True
        if not self.waiting:
            self._lose()

    def abort(self) -> None:
        """Close now."""
        self._is_closing = self.is_aborted = True
        self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.loop.call_soon(self.protocol.connection_lost, None)


class Request:
    """A RequestHandler. It does what its path says: early, later, parts, never, abort; else it says what it has read.

    answered: status and body, once it has answered. whole: the body has all come.
    """

    def __init__(self, loop: Loop, scope: Scope, client: ClientRequest) -> None:
        self.scope = scope
        self.body = b""
        self.whole = self.is_gone = self.is_aborted = False
        self.answered: tuple[int, bytes] | None = None
        self._loop = loop
        self._client = client
        self._kind = scope.path.partition("/")[2].partition("/")[0]

    def begin(self, body: bytes, more: bool) -> None:
        """Take what has come of the body."""
        if self.is_gone:
            return
        if self._kind == "early":
            self.body += body
            self.whole = not more
            self._answer([b"early"])
        else:
            self.received(body, more)

    def received(self, data: bytes, more: bool) -> None:
        """Take the next part of the body."""
        assert not self.whole, "a body behind its end"
        assert not self.is_gone, "a body for nobody"
        self.body += data
        if more:
            self._client.want()
            return
        self.whole = True
        said = b"%b %d %d" % (self.scope.method.encode(), len(self.body), sum(self.body) % 251)
        if self._kind == "later":
            self._loop.call_later(LATER_SECONDS, self._answer, [said])
        elif self._kind == "parts":
            self._answer([said, b"", b"x" * 5, b""])
        elif self._kind == "abort":
            self._client.respond(200, [], said, more=True)
            self.is_aborted = True
            self._client.abort()
        elif self._kind != "never":
            self._answer([said])

    def _answer(self, parts: Sequence[bytes]) -> None:
        if self.is_gone:
            return
        length = [(b"content-length", b"%d" % len(parts[0]))] if len(parts) == 1 else []
        self.answered = 200, b"".join(parts)
        self._client.respond(200, length, parts[0], more=len(parts) > 1)
        for number, part in enumerate(parts[1:], 2):
            self._client.write(part, more=number < len(parts))

    def resumed(self) -> None:
        """Nothing waits."""

    def gone(self) -> None:
        """End."""
        assert not self.is_gone, "gone twice"
        self.is_gone = True


class Socket:
    """A SocketHandler that says again what it is told. Its path says how: refuse, later, hold, bye."""

    def __init__(self, loop: Loop, scope: Scope, client: ClientSocket) -> None:
        self.scope = scope
        self.messages: list[Frame] = []
        self.ended: tuple[int, str] | None = None
        self._loop = loop
        self._client = client
        self._kind = scope.path.partition("/")[2].partition("/")[0]
        accept = Accept(None, [])
        if self._kind == "refuse":
            refusal = Close(POLICY_VIOLATION, "", 403, [(b"content-length", b"2")], b"no")
            loop.call_soon(client.close, refusal)
        elif self._kind == "later":
            loop.call_later(LATER_SECONDS, client.accept, accept)
        else:
            loop.call_soon(client.accept, accept)

    def receive(self, frame: Frame) -> None:
        """Say it again."""
        assert self.ended is None, "a message behind the end"
        self.messages.append(frame)
        self._client.frame(frame)
        if self._kind == "hold":
            self._client.pause()
            self._loop.call_soon(self._client.resume)
        elif self._kind == "bye":
            self._client.close(Close(1000, "bye"))

    def resumed(self) -> None:
        """Nothing waits."""

    def left(self, code: int, reason: str) -> None:
        """End."""
        assert self.ended is None, "left twice"
        self.ended = code, reason


class Backend:
    """Serves requests and sockets, and keeps them in their order."""

    def __init__(self, loop: Loop) -> None:
        self.limits = Limits()
        self.figures: Any = SimpleNamespace(full=0)
        self.calls: list[Request | Socket] = []
        self.refused: list[str] = []
        self._loop = loop

    @property
    def rejections(self) -> Any:
        """What was refused."""
        return SimpleNamespace(add=self.refused.append)

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> Request:
        """Serve a request."""
        assert not more or not body
        assert more or length in {-1, len(body)}
        request = Request(self._loop, scope, client)
        self.calls.append(request)
        self._loop.call_soon(request.begin, body, more)
        return request

    def websocket(self, scope: Scope, client: ClientSocket) -> Socket:
        """Serve a socket."""
        found = Socket(self._loop, scope, client)
        self.calls.append(found)
        return found

    def lifespan(self, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """Nothing starts."""
        raise NotImplementedError


class Server:
    """One connection from its begin to its end."""

    def __init__(self, is_slow: bool = False) -> None:
        self.loop = Loop()
        self.raised: list[Any] = []
        self.loop.set_exception_handler(lambda _loop, what: self.raised.append(what))
        self.backend = Backend(self.loop)
        self.edge = Edge(self.backend, "")
        self.state = ServerState()
        self.transport = Transport(self.loop, is_slow)
        self._config = SimpleNamespace(
            loaded_app=self.edge,
            root_path="",
            is_ssl=False,
            limit_concurrency=None,
            timeout_keep_alive=5,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PING_SECONDS,
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
        )
        self._call(self._connect)

    def _connect(self) -> None:
        self.transport.protocol = HTTPProtocol(config=self._config, server_state=self.state, app_state={})
        self.transport.protocol.connection_made(self.transport)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call from the loop, as a transport is."""
        self.loop.call_soon(function, *arguments)
        self.loop.turn(2)
        self.check()

    def check(self) -> None:
        """Raise what a callback has raised."""
        if self.raised:
            what = self.raised[0]
            raise AssertionError(what.get("message")) from what.get("exception")

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Send pieces, as far as the connection reads."""
        for piece in pieces:
            if not self.transport.is_reading():
                self.loop.turn(TURNS)
            if not self.transport.is_reading():
                break
            self._call(lambda data: self.transport.protocol.data_received(data), piece)
            self._check_bounds(len(piece))
            if self.transport.is_slow:
                self.transport.drain()
        self.settle()

    def settle(self) -> None:
        """Run until the connection has done what it can do now."""
        before: object = None
        while before != (before := self._progress()):
            self.loop.turn(TURNS)
        self.check()

    def _progress(self) -> object:
        protocol = self.transport.protocol
        return len(self.transport.out), len(self.backend.calls), len(protocol._unread), protocol._parsed

    def _check_bounds(self, size: int) -> None:
        """Assert that what waits in memory is bounded."""
        protocol, edge = self.transport.protocol, self.edge
        assert edge.unfinished_bytes <= edge.limits.header_bytes + SLICE_BYTES
        assert edge.body_bytes <= READ_AHEAD_BYTES + SLICE_BYTES + size
        unread = len(protocol._unread) - protocol._parsed
        assert unread <= 2 * size + SLICE_BYTES or self.transport.is_slow, unread
        assert len(getattr(protocol, "_partial", b"")) <= MESSAGE_BYTES + SLICE_BYTES + 14
        assert getattr(protocol, "_size", 0) <= MESSAGE_BYTES

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.now += seconds
        self.loop.turn(3)
        self.check()

    def end(self, half_closes: bool) -> None:
        """End as a client that closes its side, or as one that stays and is silent; every deadline passes."""
        if half_closes and self.transport.is_reading():
            self._call(self._eof)
        for _ in range(STEPS):
            self.transport.drain()
            self.wait(STEP_SECONDS)
        if not self.transport.is_lost:
            assert self.waits, "a connection stays open, and nothing is under way"
            self.transport.abort()
        self.loop.turn(TURNS)
        self.check()
        self._check_end()
        self.loop.close()

    def _eof(self) -> None:
        if not self.transport.protocol.eof_received():
            self.transport.close()

    @property
    def waits(self) -> bool:
        """Whether a request has no answer yet."""
        return any(isinstance(each, Request) and not (each.answered or each.is_gone) for each in self.backend.calls)

    def _check_end(self) -> None:
        """Assert that nothing is left of the connection, and that everybody was told."""
        edge = self.edge
        assert not self.state.connections
        assert not edge.held
        assert (edge.requests, edge.unfinished_bytes, edge.body_bytes) == (0, 0, 0)
        for name in (
            "keep_alive",
            "arriving",
            "first_byte",
            "header",
            "handshake",
            "linger",
            "closing",
            "stalled",
            "ping",
            "pong",
        ):
            assert getattr(edge, name).oldest() is None, name
        for each in self.backend.calls:
            if isinstance(each, Socket):
                assert each.ended is not None, "a socket was not told of its end"
            else:
                assert each.answered or each.is_gone or each.is_aborted, "a request has no end"


def seen(backend: Backend) -> list[tuple[object, ...]]:
    """Return what the application saw whole: requests with their bodies, and sockets with their messages."""
    found: list[tuple[object, ...]] = []
    for each in backend.calls:
        scope: tuple[str, str, str, bytes, Headers] = (
            *(each.scope.method, each.scope.http_version, each.scope.path),
            *(each.scope.query_string, each.scope.headers),
        )
        if isinstance(each, Socket):
            found.append((*scope, each.messages, each.ended))
        elif each.whole:
            found.append((*scope, each.body))
    return found
