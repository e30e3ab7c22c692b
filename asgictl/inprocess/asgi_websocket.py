"""One WebSocket of an ASGI application inside the server (ASGI, WebSocket connection scope)."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from asgictl.app.boundary import UserCode
from asgictl.config import Limits
from asgictl.interface.edge import ClientSocket
from asgictl.wire.asgi import (
    ASGIMessage,
    accept_of,
    bytes_of,
    close_of,
    denial_of,
    headers_of,
    plain_message,
    status_of,
)
from asgictl.wire.messages import INTERNAL_ERROR, Close, Frame, Headers


class ClientDisconnected(OSError):
    """The application sends to a client that has left (ASGI: send may raise OSError)."""


class State(Enum):
    CONNECTING = auto()
    DENYING = auto()  # the head of a response that refuses the handshake was sent
    OPEN = auto()
    CLOSED = auto()  # by the application
    GONE = auto()  # the client


class ASGISocket:
    """A SocketHandler: `receive` and `send` of one socket."""

    def __init__(self, client: ClientSocket, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._state = State.CONNECTING
        self._incoming: deque[ASGIMessage] = deque([{"type": "websocket.connect"}])
        self._bytes = 0  # of frames that the application has not received
        self._is_held = False  # so that the client is not read
        self._changed = asyncio.Event()
        self._denial: tuple[int, Headers] | None = None
        self._denial_body = b""

    # A SocketHandler's calls.

    def receive(self, frame: Frame) -> None:
        """Take a message that the client sent; while too many wait the client is not read."""
        self._incoming.append({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})
        self._bytes += len(frame)
        if len(self._incoming) >= self._limits.inbox_frames or self._bytes >= self._limits.inbox_bytes:
            self._is_held = True
            self._client.pause()
        self._changed.set()

    def resumed(self) -> None:
        """The client has taken what was sent."""
        self._changed.set()

    def left(self, code: int, reason: str) -> None:
        """The client has left, or was closed."""
        if self._state is not State.CLOSED:
            self._state = State.GONE
        self._incoming.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._changed.set()

    async def _wait(self) -> None:
        """Wait for any change; `receive` and `send` may do so at once."""
        self._changed.clear()
        await self._changed.wait()

    # The application's.

    async def run(self, application: Callable[..., Any], scope: dict[str, Any]) -> None:
        """Run the application; whatever it does, its handshake is answered and its socket closed."""
        code = INTERNAL_ERROR
        try:
            with UserCode("WebSocket %s failed", scope["path"], is_cancellable=True) as ended:
                await application(scope, self._receive, self._send)
                if self._state in {State.CONNECTING, State.DENYING}:
                    raise RuntimeError("the application returned without answering the handshake")
            code = INTERNAL_ERROR if ended.error else 1000
        finally:  # a server that stops may cancel this task
            self._client.close(Close(code, "", 500))

    async def _receive(self) -> ASGIMessage:
        while not self._incoming:
            await self._wait()
        message = self._incoming[0]
        if message["type"] != "websocket.disconnect":  # which it hears as often as it asks
            self._incoming.popleft()
        if message["type"] == "websocket.receive":
            self._bytes -= len(message["text"] if "text" in message else message["bytes"])
            if self._is_held and len(self._incoming) <= self._limits.inbox_frames // 2:
                self._is_held = False
                self._client.resume()
        return message

    async def _send(self, message: ASGIMessage) -> None:
        kind, state = message["type"], self._state
        if state is State.GONE:
            if kind == "websocket.close":
                return  # many applications close whatever they heard
            raise ClientDisconnected("the client has gone")
        if kind == "websocket.send" and state is State.OPEN:
            await self._send_frame(plain_message(message))
        elif kind == "websocket.accept" and state is State.CONNECTING:
            self._client.accept(accept_of(message.get("subprotocol"), message.get("headers")))
            self._state = State.OPEN
        elif kind == "websocket.close" and state in {State.OPEN, State.CONNECTING}:
            self._close(close_of(message.get("code", 1000), message.get("reason")))
        elif kind == "websocket.http.response.start" and state is State.CONNECTING:
            status = status_of(message["status"], 599)
            self._denial, self._state = (status, headers_of(status, message.get("headers") or ())[0]), State.DENYING
        elif kind == "websocket.http.response.body" and state is State.DENYING:
            self._deny(bytes_of(message.get("body", b"")), more=bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"{kind} out of order: the socket is {state.name}")

    async def _send_frame(self, message: ASGIMessage) -> None:
        data = message.get("bytes")
        self._client.frame(message["text"] if data is None else data)
        while self._client.waiting_bytes and self._state is State.OPEN:
            await self._wait()

    def _deny(self, body: bytes, *, more: bool) -> None:
        self._denial_body = denial_of(self._denial_body + body)
        if not more and self._denial is not None:
            self._close(Close(1000, "", *self._denial, self._denial_body))

    def _close(self, close: Close) -> None:
        self._state = State.CLOSED
        self._client.close(close)
