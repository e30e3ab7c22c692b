"""Stands before an application whose server cannot drain: ends what is in flight when the server stops."""

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from asgictl.config import Limits
from asgictl.interface.drain import Leaving, close_sockets
from asgictl.wire.asgi import ASGIMessage, Receive, Send
from asgictl.wire.messages import SERVICE_RESTART

CLOSE_SECONDS = 5.0  # in which a client answers that its socket is closed; then it is cut


class Door:
    """The application behind a server that cannot drain: knows what is in flight, and ends it once the server stops.

    It also gives each scope its root_path, with which `path` begins (ASGI, HTTP connection scope).
    """

    def __init__(self, application: Callable[..., Any], root_path: str, limits: Limits) -> None:
        self._application = application
        self._root_path = root_path
        self._limits = limits
        self._sockets: set[Socket] = set()
        self._tasks: set[Any] = set()
        self._leaving: deque[Leaving] = deque()  # sockets to close
        self._closing: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        root = self._root_path
        raw_path = root.encode() + scope["raw_path"]
        scope = {**scope, "root_path": root, "path": root + scope["path"], "raw_path": raw_path}
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            if scope["type"] == "websocket":
                await self._serve(Socket(receive, send, self._accepted), scope)
            else:
                await self._application(scope, receive, send)
        finally:
            self._tasks.discard(task)

    async def _serve(self, socket: "Socket", scope: MutableMapping[str, Any]) -> None:
        self._sockets.add(socket)
        try:
            await self._application(scope, socket.receive, socket.send)
        except OSError:
            if not socket.is_closed:
                raise
        finally:
            self._sockets.discard(socket)
            await socket.finish()

    def _accepted(self, socket: "Socket") -> None:
        if self._closing:
            self._leaving.append(socket)

    def close(self) -> None:
        """Close every socket with 1012, at the drain's rate; and so those that are accepted from now on."""
        if self._closing is None:
            self._leaving.extend(each for each in self._sockets if each.is_open)
            self._closing = asyncio.ensure_future(close_sockets(self._leaving, self._limits))

    async def drain(self, seconds: float) -> None:
        """Wait until all that is in flight has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        if self._closing:
            self._closing.cancel()


class Socket:
    """A WebSocket's `receive` and `send`. Once it is closed, its application hears that the client has gone."""

    def __init__(self, receive: Receive, send: Send, accepted: Callable[["Socket"], None]) -> None:
        self._receive = receive
        self._send = send
        self._accepted = accepted
        self.is_open: bool = False
        self._reading: asyncio.Future[ASGIMessage] | None = None  # a read is never cancelled, it could lose a message
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing: asyncio.Future[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether restart() has closed it."""
        return self._closed.done()

    async def receive(self) -> ASGIMessage:
        reading = self._read()
        await asyncio.wait((reading, self._closed), return_when=asyncio.FIRST_COMPLETED)
        if self.is_closed:
            return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": ""}
        self._reading = None
        return reading.result()

    def _read(self) -> asyncio.Future[ASGIMessage]:
        self._reading = self._reading or asyncio.ensure_future(self._receive())
        return self._reading

    async def send(self, message: ASGIMessage) -> None:
        if self.is_closed:
            raise ConnectionError("the server stops")
        self.is_open = message["type"] in ("websocket.accept", "websocket.send")
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._accepted(self)

    def restart(self) -> None:
        """Begin to close it with 1012."""
        if self.is_open and not self.is_closed:
            self._closed.set_result(None)
            self._closing = asyncio.ensure_future(self._send({"type": "websocket.close", "code": SERVICE_RESTART}))

    async def finish(self) -> None:
        """Behind the application: let the client answer, else what it sends meanwhile would reset the connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._closing:
                    await self._closing
                while self._closing and (await self._read())["type"] != "websocket.disconnect":
                    self._reading = None
        if self._reading:
            self._reading.cancel()
