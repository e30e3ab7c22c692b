"""One HTTP request on its way through an ASGI application (ASGI, HTTP connection scope)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from asgictl.layers.base import Entry
from asgictl.layers.redis_worker import commit_arguments
from asgictl.messages import WINDOW_BYTES, Chunk, Credit, Headers, Letter, Request, Response, Want
from asgictl.outcome import Outcome
from asgictl.worker.event_loop import EventLoop
from asgictl.wsgi import PART_BYTES, ClientDisconnected

logger = logging.getLogger("asgictl.worker")
Message = MutableMapping[str, Any]


class HTTPRun:
    """Await run(); take() hears the letters to this request."""

    def __init__(self, entry: Entry, event: Request, scope: dict[str, Any], events: EventLoop) -> None:
        self._entry = entry
        self._event = event
        self._scope = scope
        self._events = events
        self._outcome = Outcome(lambda sent: events.call(lambda: _send_now(events, sent)))
        self._inline: bytes | None = None if event.more else event.body
        self._chunks: deque[tuple[bytes, bool]] = deque()
        self._due = WINDOW_BYTES  # bytes of the body that may be asked for
        self._chunk_sequence = 0
        self._has_ended = False
        self._credit = event.credit
        self._moved = asyncio.Event()  # a letter has come
        self._over = asyncio.Event()  # the response is complete, or nobody waits for it
        self._is_gone = False
        self._status = 0
        self._headers: Headers = []
        self._sequence = 0

    async def run(self, application: Callable[..., Any]) -> None:
        """Run the application and commit; whatever it does, it ends with one response, or a connection that is cut."""
        event = self._event
        try:
            with self._outcome:
                await application(self._scope, self._receive, self._send)
            if not self._over.is_set():
                raise RuntimeError("the application returned before its response was complete")
        except ClientDisconnected as error:
            logger.info("%s %s ended early: %s", event.scope.method, event.scope.path, error)
        except Exception:
            logger.exception("%s %s failed", event.scope.method, event.scope.path)
        if not self._over.is_set() or self._is_gone:
            await self._fail()

    def take(self, letter: Letter) -> None:
        """Hear a letter."""
        if isinstance(letter, Credit):
            self._credit += letter.size
        elif not isinstance(letter, Chunk) or letter.sequence > self._chunk_sequence:  # gone, or a part was lost
            self._end_early()
        elif letter.sequence == self._chunk_sequence:
            self._chunk_sequence += 1
            self._due += len(letter.data)
            self._chunks.append((letter.data, letter.more))
        self._moved.set()

    def _end_early(self) -> None:
        self._is_gone = True
        self._over.set()
        self._moved.set()

    async def _receive(self) -> Message:
        if self._inline is not None:
            body, self._inline, self._has_ended = self._inline, None, True
            return {"type": "http.request", "body": body, "more_body": False}
        while not self._has_ended and not self._is_gone:
            if self._chunks:
                data, more = self._chunks.popleft()
                self._has_ended = not more
                return {"type": "http.request", "body": data, "more_body": more}
            if self._due >= WINDOW_BYTES // 2:
                event, size = self._event, self._due
                self._due = 0
                want = Want(event.connection, event.attempt, self._entry.id, self._events.inbox, size)
                self._events.reply(want, self._answered)
            self._moved.clear()
            await self._moved.wait()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._is_gone:
            raise ClientDisconnected("the client has gone")
        if self._over.is_set():
            raise RuntimeError(f"{message['type']} after the response was complete")
        if message["type"] == "http.response.start" and not self._status:
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            self._status, self._headers = int(message["status"]), headers
            asyncio.get_running_loop().call_soon(self._start)  # a body that follows at once goes with it
        elif message["type"] == "http.response.body" and self._status:
            await self._send_body(bytes(message.get("body", b"")), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} out of order: http.response.start comes first, and once")

    def _start(self) -> None:
        if not self._sequence and not self._over.is_set():
            self._push(b"")

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        at = 0
        while len(body) - at > (0 if more else min(self._credit, PART_BYTES)):
            size = min(self._credit, PART_BYTES)
            self._push(body[at : at + size])
            at += size
            while self._credit <= 0:
                self._moved.clear()
                await self._moved.wait()
                if self._is_gone:
                    raise ClientDisconnected("the client has gone")
        if not more:
            self._over.set()
            await self._commit(self._part(body[at:]))

    def _push(self, body: bytes) -> None:
        self._credit -= len(body)
        self._events.reply(self._part(body, more=True), self._answered)

    def _answered(self, reply: object) -> None:
        if not isinstance(reply, bytes):  # the interface is gone, or Redis has lost it
            self._end_early()

    async def _fail(self) -> None:
        self._over.set()
        if self._sequence:
            await self._commit(self._part(b"", aborted=True))
            return
        body = b"Internal Server Error\n"
        self._status, self._headers = 500, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await self._commit(self._part(body))

    def _part(self, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
        event, headers = self._event, [] if self._sequence else self._headers
        part = Response(
            *(event.connection, self._sequence, self._status, headers, body, more, aborted),
            *(event.attempt, self._entry.id, self._events.inbox if more else ""),
        )
        self._sequence += 1
        return part

    async def _commit(self, part: Response) -> None:
        arguments = commit_arguments(self._events.keys, self._entry, part, self._outcome.broadcasts)
        await self._events.commit(*arguments)


def _send_now(events: EventLoop, sent: Any) -> None:
    """For Group.send(immediately=True) in a view."""
    events.publish(sent, lambda _answer: None)
