"""What waits to be written to one WebSocket, in order: its handshake's answer, frames, and its end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgictl.messages import Accept, Close, Frame

ASGIMessage = MutableMapping[str, Any]
Send = Callable[[ASGIMessage], Awaitable[None]]


class Outbox:
    """is_open: until a close was put into it, or the client left. written: called with the size of each frame that was.

    can_deny: whether the server has the extension websocket.http.response (ASGI).
    """

    def __init__(self, send: Send, can_deny: bool, written: Callable[[int], None] = lambda _size: None) -> None:
        self.is_open = True
        self.is_accepted = False
        self.bytes = 0  # of frames that wait
        self._send = send
        self._can_deny = can_deny
        self._has_written = written
        self._messages: deque[tuple[ASGIMessage, int]] = deque()
        self._writer: asyncio.Task[None] | None = None

    def accept(self, accept: Accept) -> None:
        """Open the socket, unless the client has left."""
        if self.is_open:
            self.is_accepted = True
            self._put({"type": "websocket.accept", "subprotocol": accept.subprotocol, "headers": accept.headers})

    def frame(self, frame: Frame) -> None:
        """Send a frame; nothing happens when the socket is not open."""
        if self.is_open and self.is_accepted:
            self.bytes += len(frame)
            self._put({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}, len(frame))

    def close(self, close: Close) -> None:
        """Close after what was put before, or refuse the handshake."""
        if self.is_open and self.is_accepted:
            self._put({"type": "websocket.close", "code": close.code, "reason": close.reason})
        elif self.is_open:
            for message in denial(close, self._can_deny):
                self._put(message)
        self.is_open = False

    def _put(self, message: ASGIMessage, size: int = 0) -> None:
        self._messages.append((message, size))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write all that waits; lives only while there is something to write."""
        try:
            while self._messages:
                message, size = self._messages[0]
                await self._send(message)
                self._messages.popleft()
                self.bytes -= size
                if message["type"] == "websocket.send":
                    self._has_written(size)
        except OSError:  # the client has gone (ASGI: send may raise it); the reader hears websocket.disconnect
            self.is_open = False
            self._messages.clear()
        finally:
            self._writer = None


def denial(close: Close, can_deny: bool) -> list[ASGIMessage]:
    """Return the ASGI messages that refuse a handshake; without the extension every refusal is a 403."""
    if not can_deny:
        return [{"type": "websocket.close"}]
    headers = close.headers or [(b"content-length", b"0"), *([(b"retry-after", b"1")] if close.status == 503 else [])]
    start = {"type": "websocket.http.response.start", "status": close.status, "headers": headers}
    return [start, {"type": "websocket.http.response.body", "body": close.body}]
