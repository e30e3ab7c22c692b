"""What all connections of one server share: who serves them, their limits, and what is due.

A connection is a protocol of the event loop's (edge_http, edge_websocket), or one of a server that speaks ASGI
(edge_asgi). It hands requests and sockets to a Backend by plain calls, and is handed responses and frames so: no task,
queue or ASGI message stands between.
"""

import asyncio
import resource
import select
from collections import deque
from collections.abc import Callable, Coroutine, MutableMapping
from contextvars import Context, copy_context
from math import inf
from time import monotonic
from typing import Any, NamedTuple, Protocol

from asgictl.config import Limits
from asgictl.interface import limits as bounds
from asgictl.interface.drain import Leaving, close_sockets, closed_seconds
from asgictl.interface.forwarded import Trusted
from asgictl.interface.framing import Defaults
from asgictl.machine.ticks import until_tick
from asgictl.telemetry.access_log import WebSocketLog
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.messages import Accept, Close, Frame, Headers, Scope

_GONE = getattr(select, "POLLRDHUP", 0)  # Linux: the client has closed its side


class ClientRequest(Protocol):
    """The client's side of a request: takes its response and gives its body.

    home: the worker that has answered on its connection last, as its backend says; "" before any has.
    """

    home: str

    @property
    def is_paused(self) -> bool:
        """Whether what was written waits for the client; RequestHandler.resumed() follows."""

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves this request in a task; a server that stops waits for it."""

    def want(self) -> None:
        """Read on: RequestHandler.received() is called once, with what comes next of the body."""

    def respond(self, status: int, headers: Headers, body: bytes, more: bool) -> None:
        """Begin the response; `more` says that another part follows."""

    def write(self, body: bytes, more: bool) -> None:
        """Write the next part."""

    def abort(self) -> None:
        """Cut off a response that has begun."""


class RequestHandler(Protocol):
    """The application's side of a request."""

    def received(self, data: bytes, more: bool) -> None:
        """Take the next part of the body, which was asked for."""

    def resumed(self) -> None:
        """Write on: the client has taken what was written."""

    def gone(self) -> None:
        """End: the client has left, and the response goes nowhere."""


class ClientSocket(Protocol):
    """The client's side of a WebSocket.

    is_open: until it was closed or its client left. is_accepted: the handshake was. log: of its opening and end.
    home: as of a request, that came before it on its connection.
    """

    home: str
    is_open: bool
    is_accepted: bool
    log: WebSocketLog

    @property
    def waiting_bytes(self) -> int:
        """How much waits for a client that reads too slowly; SocketHandler.resumed() follows."""

    def accept(self, accept: Accept) -> None:
        """Open the socket, unless the client has left."""

    def frame(self, frame: Frame) -> None:
        """Send a frame; nothing happens when the socket is not open."""

    def close(self, close: Close) -> None:
        """Close after what was sent before, or refuse the handshake."""

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves this socket in a task; a server that stops waits for it."""

    def pause(self) -> None:
        """Read no frames, so that TCP holds the client back."""

    def resume(self) -> None:
        """Read frames again."""


class Standing(NamedTuple):
    """A connection that is neither read nor written. unread: what was read of it and is not parsed."""

    descriptor: int
    unread: bytes


class MovableSocket(ClientSocket, Protocol):
    """A ClientSocket whose connection can go to another process."""

    def suspend(self) -> Standing | None:
        """Neither read nor write until wake(), or return None if that cannot be now."""

    def wake(self) -> None:
        """Go on as before suspend()."""

    def let_go(self) -> None:
        """Close this process's descriptor alone."""


class SocketHandler(Protocol):
    """The application's side of a WebSocket."""

    def receive(self, frame: Frame) -> None:
        """Take a message that the client sent."""

    def resumed(self) -> None:
        """Send on: the client has taken what was sent."""

    def left(self, code: int, reason: str) -> None:
        """End: the client has left or was closed (RFC 6455, section 7.1.5)."""


class Backend(Protocol):
    """Serves requests and sockets. figures: count what comes by ASGI's messages."""

    limits: Limits
    figures: Figures

    @property
    def rejections(self) -> Rejections:
        """What was refused."""

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> RequestHandler:
        """Serve a request. length: of its body, -1 where only its end tells; more: the rest is to be asked for."""

    def websocket(self, scope: Scope, client: ClientSocket) -> SocketHandler | None:
        """Serve a socket whose handshake is valid; None when it was refused at once."""

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Start, and stop, as ASGI's lifespan has it."""


class Connection(Protocol):
    """What is known of a connection. turn_bytes: written in this turn of the loop, while its client is slow."""

    transport: asyncio.Transport
    turn_bytes: int

    def close_idle(self) -> None:
        """Close: it is between two requests."""


class Deadlines:
    """Connections that wait for something that has one constant time, in the order in which they are due."""

    def __init__(self, seconds: float, expire: Callable[[Any], None]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._due: dict[Any, float] = {}

    def start(self, connection: Any, now: float) -> None:
        """Let the time of a connection begin, or begin again."""
        self._due.pop(connection, None)
        self._due[connection] = now + self._seconds

    def stop(self, connection: Any) -> None:
        """Forget a connection, whether it is known or not."""
        self._due.pop(connection, None)

    def oldest(self) -> Any:
        """Return the connection that is due first, None when there is none."""
        return next(iter(self._due), None)

    def check(self, now: float) -> None:
        """Expire those that are due."""
        expired = []
        for connection, due in self._due.items():
            if due > now:
                break
            expired.append(connection)
        for connection in expired:
            del self._due[connection]
        for connection in expired:
            self._expire(connection)


class Edge:
    """The ASGI application that uvicorn is given: only its lifespan goes this way, its connections call `backend`."""

    def __init__(self, backend: Backend, trusted: str) -> None:
        self.backend = backend
        limits = backend.limits
        self.limits: Limits = limits
        self.trusted: Trusted = Trusted(trusted)
        self.requests = 0  # in flight
        self.unfinished_bytes = 0  # of headers
        self.body_bytes = 0  # of bodies that were not asked for
        self._due: deque[Any] = deque()  # connections that parse on, in turn
        self._is_parsing = False  # or will, in the loop's next turn
        self.held: set[Any] = set()  # connections whose uploads wait
        self.is_draining: bool = False  # each response says that its connection closes
        self.leaving: deque[Leaving] = deque()  # sockets to close
        self.keep_alive: Deadlines = Deadlines(inf, _close_idle)  # until adopt()
        self.arriving: Deadlines = Deadlines(
            limits.first_byte_seconds, lambda each: self.connections.discard(each)
        )  # in TLS
        self.first_byte: Deadlines = Deadlines(limits.first_byte_seconds, self._silent)
        self.header: Deadlines = Deadlines(limits.header_seconds, lambda each: each.refuse_late())
        self.handshake: Deadlines = Deadlines(limits.handshake_seconds, lambda each: each.refuse_late())
        self.linger: Deadlines = Deadlines(bounds.LINGER_SECONDS, lambda each: each.check_linger())
        self.closing: Deadlines = Deadlines(bounds.CLOSE_SECONDS, _abort)
        self.stalled: Deadlines = Deadlines(bounds.STALLED_SECONDS, lambda each: each.check_progress())
        self.ping: Deadlines = Deadlines(inf, lambda each: each.send_ping())
        self.pong: Deadlines = Deadlines(inf, lambda each: each.miss_pong())
        self._written: dict[Connection, list[bytes]] = {}
        self._defaults = Defaults([])
        self._config: Any = None
        self.loop: asyncio.AbstractEventLoop
        self.context: Context
        self.connections: set[Any]
        self.capacity: int

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise RuntimeError(f"{scope['type']} came by ASGI; connections call the backend")
        await self.backend.lifespan(receive, send)

    def adopt(self, config: Any, state: Any) -> None:
        """Take what the server's first connection knows of it: uvicorn's Config and ServerState."""
        if self._config is config:
            return
        self._config = config
        self.connections = state.connections
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.keep_alive = Deadlines(config.timeout_keep_alive, _close_idle)
        self.ping = Deadlines(config.ws_ping_interval or inf, lambda each: each.send_ping())
        self.pong = Deadlines(config.ws_ping_timeout or inf, lambda each: each.miss_pong())
        self.capacity = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - bounds.SPARE_FILES, 1)
        self._tick()

    def parse(self, connection: Any) -> None:
        """Have a connection parse on: at once, unless others wait for that."""
        self._due.append(connection)
        if not self._is_parsing:
            self._parse()

    def parse_soon(self, connection: Any) -> None:
        """Have a connection parse on, in the loop's next turn or a later one."""
        self._due.append(connection)
        if not self._is_parsing:
            self._is_parsing = True
            self.loop.call_soon(self._parse, context=self.context)

    def _parse(self) -> None:
        """Give those that wait equal parts of a turn."""
        self._is_parsing = True
        share, end = bounds.TURN_SECONDS / len(self._due), monotonic() + bounds.TURN_SECONDS
        try:
            while self._due:
                self._due.popleft().parse_on(monotonic() + share)
                if monotonic() > end:
                    break
        finally:
            self._is_parsing = bool(self._due)
            if self._due:
                self.loop.call_soon(self._parse, context=self.context)

    def write(self, connection: Connection, data: bytes) -> None:
        """Write at the end of the loop's turn, together with what all other connections have to write.

        A client's process would else wake and go to sleep again between any two of many responses, which doubles what a
        write costs.
        """
        waiting = self._written.get(connection)
        if waiting is not None:
            waiting.append(data)
            return
        if not self._written:
            self.loop.call_soon(self.flush)
        self._written[connection] = [data]

    def flush(self) -> None:
        """Write now."""
        written, self._written = self._written, {}
        for connection, parts in written.items():
            connection.turn_bytes = 0
            try:
                if not connection.transport.is_closing():
                    connection.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
            except Exception as error:  # noqa: BLE001 - one connection's fault is not to take what others have written
                self.loop.call_exception_handler({"message": "a connection cannot be written", "exception": error})
                connection.transport.abort()

    @property
    def is_arriving(self) -> bool:
        """Whether connections that were accepted may become sockets yet."""
        between = (self.arriving, self.first_byte, self.header, self.handshake)
        return any(each.oldest() is not None for each in between)

    def reject(self, reason: str) -> None:
        """Count what was refused."""
        self.backend.rejections.add(reason)

    def defaults(self, headers: Headers) -> Defaults:
        """Return the server's default headers; uvicorn has a new list of them each second."""
        if self._defaults.headers is not headers:
            self._defaults = Defaults(headers)
        return self._defaults

    def make_room(self) -> bool:
        """Close the oldest idle connection if open files run out. Return whether a new connection can be served."""
        if len(self.connections) <= self.capacity:
            return True
        idle = self.keep_alive.oldest() or self.first_byte.oldest()
        if idle is None:
            return False
        self.keep_alive.stop(idle)  # many may come in one turn of the loop
        self.first_byte.stop(idle)
        self.reject(bounds.TOO_MANY_FILES)
        idle.close_idle()
        return True

    def bound_unfinished(self) -> None:
        """Refuse the oldest of the headers that are not whole, while all together are too large."""
        while self.unfinished_bytes > self.limits.unfinished_header_bytes and (oldest := self.header.oldest()):
            self.header.stop(oldest)
            oldest.refuse_crowded()

    def drain(self) -> asyncio.Task[None]:
        """Serve idle connections once more, and close sockets, until the task that is returned is cancelled."""
        self.is_draining = True
        return asyncio.create_task(self._close())

    async def _close(self) -> None:
        """Close sockets; in the end what is idle too, as a keep-alive time may be longer than a drain."""
        timer = asyncio.get_running_loop().call_later(closed_seconds(self.limits), self._close_all_idle)
        try:
            await close_sockets(self.leaving, self.limits)
        finally:
            timer.cancel()

    def _close_all_idle(self) -> None:
        for each in (self.keep_alive, self.first_byte):
            each.check(inf)

    def forget(self, connection: Any) -> None:
        """A connection is lost."""
        for each in self._deadlines():
            each.stop(connection)
        self.held.discard(connection)

    def _deadlines(self) -> tuple[Deadlines, ...]:
        between = (self.keep_alive, self.arriving, self.first_byte, self.header, self.handshake)
        return (*between, self.linger, self.closing, self.stalled, self.ping, self.pong)

    def _tick(self) -> None:
        self.loop.call_later(until_tick(bounds.TICK_SECONDS), self._tick)  # whatever fails below
        now = self.loop.time()
        for each in self._deadlines():
            each.check(now)
        self._find_abandoned()
        self.backend.figures.full = int(len(self.connections) >= self.capacity)

    def _find_abandoned(self) -> None:
        """Find clients that left while their uploads waited: what is not read does not tell."""
        if not (_GONE and self.held):
            return
        watched, poll = {each.fileno(): each for each in self.held}, select.poll()
        for number in watched:
            poll.register(number, _GONE)
        for number, _event in poll.poll(0):
            watched[number].client_left()

    def _silent(self, connection: Any) -> None:
        self.reject(bounds.SILENT)
        connection.close_idle()


def _close_idle(connection: Any) -> None:
    connection.close_idle()


def _abort(connection: Any) -> None:
    connection.transport.abort()
