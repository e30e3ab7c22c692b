"""What waits to be written to one WebSocket, in order: its handshake's answer, frames, and its end."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

from asgictl.wire.asgi import ASGIMessage, Send
from asgictl.wire.messages import Accept, Close, Frame


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
        self._is_writing = False
        self._writer: asyncio.Task[None] | None = None  # which the loop alone would not keep alive

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
        """Write now as far as the server takes it, which spares most frames a task of their own; the rest in a task."""
        self._messages.append((message, size))
        if self._is_writing:
            return
        self._is_writing = True
        started = self._write()
        try:
            waits_for = started.send(None)
        except StopIteration:
            return
        self._writer = asyncio.get_running_loop().create_task(_finish(started, waits_for))

    async def _write(self) -> None:
        """Write all that waits; lives only while there is something to write. Ends the socket rather than raise."""
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
        except Exception as error:  # noqa: BLE001 - the server's fault with one socket is not to reach a group's others
            self.is_open = False
            self._messages.clear()
            what = {"message": "a WebSocket's server failed to send", "exception": error}
            asyncio.get_running_loop().call_exception_handler(what)
        finally:
            self._is_writing, self._writer = False, None


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


def denial(close: Close, can_deny: bool) -> list[ASGIMessage]:
    """Return the ASGI messages that refuse a handshake; without the extension every refusal is a 403."""
    if not can_deny:
        return [{"type": "websocket.close"}]
    headers = close.headers or [(b"content-length", b"0"), *([(b"retry-after", b"1")] if close.status == 503 else [])]
    start = {"type": "websocket.http.response.start", "status": close.status, "headers": headers}
    return [start, {"type": "websocket.http.response.body", "body": close.body}]
