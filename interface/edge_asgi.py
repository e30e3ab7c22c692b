"""The edge as an ASGI application, for servers with protocols of their own: daphne, hypercorn, and tests.

They frame, and judge what clients send, by themselves (docs/servers.md). What they say and hear by ASGI's messages is
translated here, for the same backend.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, MutableMapping
from functools import partial
from types import coroutine
from typing import Any

from asgictl.interface.edge import Backend, RequestHandler, SocketHandler
from asgictl.interface.forwarded import Trusted
from asgictl.layers.flow_control import weight
from asgictl.telemetry.access_log import UNLOGGED, WebSocketLog
from asgictl.wire.asgi import ASGIMessage, Receive, Send
from asgictl.wire.error_responses import BODY_TOO_SLOW, plain_text
from asgictl.wire.messages import ABNORMAL_CLOSURE, Accept, Close, Frame, Headers, Scope


class ASGIEdge:
    """The ASGI application in front of a backend. trusted: proxies whose X-Forwarded headers count."""

    def __init__(self, backend: Backend, trusted: str = "") -> None:
        self._backend = backend
        self._trusted = Trusted(trusted)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._backend.lifespan(receive, send)
            return
        self._backend.figures.adapted += 1
        if scope["type"] == "http":
            await AdaptedRequest(receive, send).run(self._backend, self._travelling(scope))
        else:
            await AdaptedSocket(receive, send, can_deny(scope)).run(self._backend, self._travelling(scope))

    def _travelling(self, scope: MutableMapping[str, Any]) -> Scope:
        """Return the parts of an ASGI connection scope that an application needs."""
        path, headers = scope["path"], [(name, value) for name, value in scope["headers"]]
        client = tuple(scope["client"]) if scope.get("client") else None
        scheme = scope.get("scheme", "ws" if scope["type"] == "websocket" else "http")
        if self._trusted.trusts(client):
            client, scheme = self._trusted.client(headers, client), self._trusted.scheme(headers, scheme)
        return Scope(
            scope.get("method", ""),
            scheme,
            scope.get("http_version", "1.1"),
            scope.get("root_path", ""),
            path,
            scope.get("raw_path") or path.replace("%", "%25").encode(),
            scope.get("query_string", b""),
            headers,
            client,
            tuple(scope["server"]) if scope.get("server") else None,
            scope.get("subprotocols", []),
        )


class Writer:
    """Sends messages in order: at once as far as the server takes them, which spares most a task; the rest in a task.

    resumed: called once nothing waits any more. failed: called when the client has left, as `send` says (ASGI).
    """

    def __init__(self, send: Send, resumed: Callable[[], None], failed: Callable[[], None]) -> None:
        self.bytes: int = 0  # that wait
        self.is_writing: bool = False
        self._send = send
        self._resumed = resumed
        self._failed = failed
        self._messages: deque[tuple[ASGIMessage, int]] = deque()
        self._task: asyncio.Task[None] | None = None  # which the loop alone would not keep alive

    def put(self, message: ASGIMessage, size: int = 0) -> None:
        """Send a message behind those that wait. size: bytes that it counts for."""
        self._messages.append((message, size))
        self.bytes += size
        if self.is_writing:
            return
        self.is_writing = True
        started = self._write()
        try:
            waits_for = started.send(None)
        except StopIteration:
            return
        self._task = asyncio.get_running_loop().create_task(_finish(started, waits_for))

    async def flush(self) -> None:
        """Wait until all is sent."""
        if self._task:
            await self._task

    async def _write(self) -> None:
        has_waited = False
        try:
            while self._messages:
                message, size = self._messages[0]
                await self._send(message)
                self._messages.popleft()
                self.bytes -= size
                has_waited = self._task is not None
        except Exception as error:  # noqa: BLE001 - the server's fault with one client is not to reach a group's others
            self._messages.clear()
            self.bytes = 0
            if not isinstance(error, OSError):  # with which a server may say that the client has left
                what = {"message": "a server failed to send", "exception": error}
                asyncio.get_running_loop().call_exception_handler(what)
            self._failed()
        finally:
            self.is_writing, self._task = False, None
        if has_waited:
            self._resumed()


async def _finish(started: Coroutine[Any, None, None], waits_for: Any) -> None:
    """Go on with a coroutine that has begun outside of any task, and waits. Python 3.12 has eager tasks for this."""
    await _going_on(started, waits_for)


@coroutine
def _going_on(started: Coroutine[Any, None, None], waits_for: Any) -> Generator[Any, None, None]:
    while True:
        step = partial(started.send, None)
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 - what it waited for has failed, or this task is cancelled
            step = partial(started.throw, error)
        try:
            waits_for = step()
        except StopIteration:
            return


class Aborted(Exception):
    """The application failed after its response had begun; the server cuts the connection."""


class AdaptedRequest:
    """One HTTP request of another server, which does not say on which connection: a ClientRequest."""

    home = ""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._writer = Writer(send, self._resumed, self._gone)
        self._handler: RequestHandler | None = None
        self._over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether it was aborted
        self._wanted = asyncio.Event()
        self._reading = asyncio.Event()  # once the body is asked for, or answered without
        self._task: asyncio.Future[None] | None = None

    async def run(self, backend: Backend, scope: Scope) -> None:
        """Serve the request until its response is sent or its client has left; raises Aborted."""
        length, expects = _body_of(scope.headers)
        body, more, limits = b"", length != 0, backend.limits
        if 0 < length <= limits.inline_bytes and not expects:
            try:
                async with asyncio.timeout(limits.http_deadline_seconds):
                    body, more = await self._whole(), False
            except TimeoutError:
                backend.rejections.add(f"requests answered 408: {BODY_TOO_SLOW}")
                self.respond(408, *plain_text(BODY_TOO_SLOW), more=False)
                await self._writer.flush()
                return
            except OSError:
                return
        self._handler = backend.http(scope, body, length, more, self)
        reader = asyncio.ensure_future(self._read(more))
        try:
            is_aborted = await self._over
            await self._writer.flush()
            if is_aborted:
                raise Aborted
            if self._task:
                await self._task
        except asyncio.CancelledError:
            if self._over.cancelled():  # it is the server that ends it
                self._handler.gone()
            raise
        finally:
            reader.cancel()
            self._handler = None

    async def _whole(self) -> bytes:
        parts = []
        while (message := await self._receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)
        raise ConnectionError("the client has left")

    async def _read(self, more: bool) -> None:
        """Hand the body on as it is asked for, one message read ahead, then hear of the client's leaving."""
        if more:
            await self._reading.wait()
        while (message := await self._receive())["type"] == "http.request":
            data = message.get("body", b"")
            if not more or (message.get("more_body", False) and not data):
                continue
            more = message.get("more_body", False)
            await self._wanted.wait()
            self._wanted.clear()
            if self._handler:
                self._handler.received(data, more)
        self._gone()

    def _gone(self) -> None:
        if not self._over.done():
            self._over.set_result(False)
            if self._handler:
                self._handler.gone()

    def _resumed(self) -> None:
        if self._handler:
            self._handler.resumed()

    @property
    def is_paused(self) -> bool:
        """Whether what was written waits for the client."""
        return self._writer.is_writing

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves this request."""
        self._task = asyncio.ensure_future(serving)

    def want(self) -> None:
        """Read on."""
        self._wanted.set()
        self._reading.set()

    def respond(self, status: int, headers: Headers, body: bytes, more: bool) -> None:
        """Begin the response, unless the client has left."""
        if self._over.done():
            return
        self._writer.put({"type": "http.response.start", "status": status, "headers": headers})
        self.write(body, more)

    def write(self, body: bytes, more: bool) -> None:
        """Write the next part."""
        if self._over.done():
            return
        self._writer.put({"type": "http.response.body", "body": body, "more_body": more})
        self._reading.set()  # else nobody would hear that the client leaves
        if not more:
            self._over.set_result(False)

    def abort(self) -> None:
        """Cut off the response."""
        if not self._over.done():
            self._over.set_result(True)


class AdaptedSocket:
    """One WebSocket of another server: a ClientSocket."""

    home = ""

    def __init__(self, receive: Receive, send: Send, can_deny: bool) -> None:
        self.is_open: bool = True
        self.is_accepted: bool = False
        self.log: WebSocketLog = UNLOGGED
        self._receive = receive
        self._can_deny = can_deny
        self._writer = Writer(send, self._resumed, self._gone)
        self._handler: SocketHandler | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Future[None] | None = None

    async def run(self, backend: Backend, scope: Scope) -> None:
        """Serve the socket until its client has left or was closed."""
        await self._receive()  # websocket.connect
        self._handler = backend.websocket(scope, self)
        if self._handler is not None:
            while (message := await self._receive())["type"] == "websocket.receive":
                if self.is_open:
                    text = message.get("text")
                    self._handler.receive(message["bytes"] if text is None else text)
                    await self._room.wait()
            self.is_open = False
            code, reason = message.get("code") or ABNORMAL_CLOSURE, message.get("reason") or ""
            self.log.end(code)
            handler, self._handler = self._handler, None
            handler.left(code, reason)
        await self._writer.flush()
        if self._task:
            await self._task

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves this socket."""
        self._task = asyncio.ensure_future(serving)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for a client that reads too slowly."""
        return self._writer.bytes

    def accept(self, accept: Accept) -> None:
        """Open the socket, unless the client has left."""
        if self.is_open:
            self.is_accepted = True
            self.log.open()
            message = {"type": "websocket.accept", "subprotocol": accept.subprotocol, "headers": accept.headers}
            self._writer.put(message)

    def frame(self, frame: Frame) -> None:
        """Send a frame; nothing happens when the socket is not open."""
        if self.is_open and self.is_accepted:
            kind = "text" if isinstance(frame, str) else "bytes"
            self._writer.put({"type": "websocket.send", kind: frame}, weight(frame))

    def close(self, close: Close) -> None:
        """Close after what was sent before, or refuse the handshake."""
        if self.is_open and self.is_accepted:
            self.log.end(close.code)
            self._writer.put({"type": "websocket.close", "code": close.code, "reason": close.reason})
        elif self.is_open:
            self.log.end(close.status if self._can_deny else 403)
            for message in denial(close, self._can_deny):
                self._writer.put(message)
        self.is_open = False
        self._room.set()

    def pause(self) -> None:
        """Read no frames."""
        self._room.clear()

    def resume(self) -> None:
        """Read frames again."""
        self._room.set()

    def _resumed(self) -> None:
        if self._handler:
            self._handler.resumed()

    def _gone(self) -> None:
        self.is_open = False  # `receive` tells how


def can_deny(scope: MutableMapping[str, Any]) -> bool:
    """Whether the server lets a handshake be refused with a response of our own (ASGI: denial response)."""
    return "websocket.http.response" in scope.get("extensions", {})


def denial(close: Close, can_deny: bool) -> list[ASGIMessage]:
    """Return the ASGI messages that refuse a handshake; without the extension every refusal is a 403."""
    if not can_deny:
        return [{"type": "websocket.close"}]
    headers = close.headers or [(b"content-length", b"0"), *([(b"retry-after", b"1")] if close.status == 503 else [])]
    start = {"type": "websocket.http.response.start", "status": close.status, "headers": headers}
    return [start, {"type": "websocket.http.response.body", "body": close.body}]


def _body_of(headers: Headers) -> tuple[int, bool]:
    """Return a body's length, -1 where only its end tells, and whether its client waits for 100 Continue."""
    length, expects = 0, False
    for name, value in headers:
        if name == b"transfer-encoding":
            length = -1
        elif name == b"content-length":
            length = int(value)
        elif name == b"expect":
            expects = True
    return length, expects
