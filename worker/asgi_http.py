"""One HTTP request on its way through an ASGI application (ASGI, HTTP connection scope)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

from asgictl.app.boundary import UserCode
from asgictl.app.outcome import Depths, Outcome
from asgictl.layers import flow_control
from asgictl.layers.base import Entry
from asgictl.layers.flow_control import OrderedReceiver, OrderedSender
from asgictl.layers.redis.refused import Commit
from asgictl.layers.redis.worker_side import commit_arguments
from asgictl.wire.asgi import ASGIMessage, bytes_of, status_of
from asgictl.wire.error_responses import APPLICATION_FAILED, APPLICATION_TOO_SLOW
from asgictl.wire.messages import WINDOW_BYTES, Chunk, Credit, Request, Response, Want, WorkerMessage, is_error
from asgictl.wire.naming import name_of
from asgictl.worker.async_runner import EventLoop
from asgictl.worker.response import ClientDisconnected, ResponseParts
from asgictl.worker.sync_body import STALL_SECONDS

logger = logging.getLogger("asgictl.worker")


class HTTPRun:
    """Await run(); take() hears the messages to this request. code: the application's, to be made cancellable."""

    def __init__(
        self,
        entry: Entry,
        event: Request,
        scope: dict[str, Any],
        events: EventLoop,
        timeout_seconds: float = 0,
        depths: Depths | None = None,
    ) -> None:
        self._entry = entry
        self.began: float = perf_counter()
        self.name: Callable[[], str] = partial(name_of, event)
        self._event = event
        self._scope = scope
        self._events = events
        self._outcome = Outcome(events.send_now, depths, event.scope.headers)
        self._timeout_seconds = timeout_seconds
        self._limit = asyncio.Timeout(None)  # of an application that does not answer, or does not end
        self._chunks = deque([] if event.more else [(event.body, False)])
        self._window = flow_control.Window(WINDOW_BYTES, 2, is_granted=False)  # of the body
        self._sender: OrderedSender[Response | Want] = OrderedSender(events.reply, self.end_early)
        self._heard = OrderedReceiver(self.end_early)
        self._has_ended = False
        self._is_listening = False  # the interface knows whom to tell when the client leaves
        self._credit = flow_control.Credit(event.credit)
        self._moved = asyncio.Event()  # a message has come, or it is over
        self._over = asyncio.Event()  # the response is complete, or nobody waits for it
        self._is_gone = False
        self._commit: asyncio.Task[None] | None = None
        self._response = ResponseParts(event, entry.id, events.inbox, events.inbox)
        self.code: UserCode = UserCode(
            *("%s %s failed", event.scope.method, event.scope.path),
            expected=ClientDisconnected,
            entry=entry.id,
            headers=event.scope.headers,
        )
        self.has_failed: bool = False

    async def run(self, application: Callable[..., Any]) -> None:
        """Run the application and commit; whatever it does, it ends with one response, or a connection that is cut."""
        with self.code as ended:
            async with self._limit:
                extend(self._limit, self._timeout_seconds)
                with self._outcome:
                    await application(self._scope, self._receive, self._send)
            if not self._over.is_set():
                raise RuntimeError("the application returned before its response was complete")
        if isinstance(ended.error, ClientDisconnected):
            logger.info("%s %s ended early: %s", self._event.scope.method, self._event.scope.path, ended.error)
        commit = self._commit or self._fail()
        while not commit.done():
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:  # by the application, late; or by us, who do not wait any more
                if self.code.is_cancellable:
                    raise
        for sent in self._outcome.sends:  # of a task that the application runs behind its response
            self._events.publish(sent)

    def take(self, message: WorkerMessage) -> None:
        """Hear a message of the interface."""
        if not isinstance(message, Chunk | Credit):
            self.end_early()
        elif not self._heard.is_next(message.sequence):
            pass
        elif isinstance(message, Credit):
            self._credit.grant(message.size)
        else:
            self._window.take(len(message.data))
            if not self._response.status:
                extend(self._limit, self._timeout_seconds)
            self._chunks.append((message.data, message.more))
        self._moved.set()

    def end_early(self) -> None:
        """Nobody waits for this response any more."""
        self._is_gone = True
        extend(self._limit, self._timeout_seconds)
        self._finish()

    def _finish(self) -> None:
        self._over.set()
        self._moved.set()

    async def _receive(self) -> ASGIMessage:
        while not (self._has_ended or self._over.is_set()):
            if self._chunks:
                data, more = self._chunks.popleft()
                self._has_ended = not more
                return {"type": "http.request", "body": data, "more_body": more}
            if due := self._window.due():
                self._want(due)
            self._moved.clear()
            await self._moved.wait()
        if not (self._is_listening or self._over.is_set()):
            self._want(0)
        await self._over.wait()
        return {"type": "http.disconnect"}

    def _want(self, size: int) -> None:
        event, sequence = self._event, self._sender.next_sequence()
        self._is_listening = True
        self._sender.send(Want(event.connection, event.attempt, self._entry.id, self._events.inbox, size, sequence))

    async def _send(self, message: ASGIMessage) -> None:
        kind = message["type"]
        if self._is_gone:
            raise ClientDisconnected("the client has gone")
        if self._over.is_set():
            raise RuntimeError(f"{kind} after the response was complete")
        if kind == "http.response.start" and not self._response.status:
            self._begin(message)
        elif kind == "http.response.body" and self._response.status:
            await self._send_body(bytes_of(message.get("body", b"")), more=bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"{kind} out of order: http.response.start comes first, and once")

    def _begin(self, message: ASGIMessage) -> None:
        self._response.begin(status_of(message["status"]), message.get("headers") or ())
        extend(self._limit, 0)
        self.code.has_answered()
        asyncio.get_running_loop().call_soon(self._start)  # a body that follows at once goes with it

    def _start(self) -> None:
        if not (self._response.has_begun or self._over.is_set()):
            self._push(self._response.part(more=True))

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        for part in self._response.parts(body, lambda: self._credit.left, more=more):
            if part.more:
                self._push(part)
                await self._wait_for_credit()
            else:
                await asyncio.shield(self._complete(part))

    async def _wait_for_credit(self) -> None:
        """Raises ClientDisconnected, and TimeoutError when the client took nothing for STALL_SECONDS."""
        while self._credit.is_spent and not self._is_gone:
            self._moved.clear()
            async with asyncio.timeout(STALL_SECONDS):
                await self._moved.wait()
        if self._is_gone:
            raise ClientDisconnected("the client has gone")

    def _push(self, part: Response) -> None:
        self._credit.spend(len(part.body))
        self._is_listening = True
        self._sender.send(part)

    def _fail(self) -> asyncio.Task[None]:
        status, text = (504, APPLICATION_TOO_SLOW) if self._limit.expired() else (500, APPLICATION_FAILED)
        return self._complete(self._response.failure(status, text))

    def _complete(self, part: Response) -> asyncio.Task[None]:
        """Commit in a task of its own: an application that hears of the response's end may cancel whoever sent it."""
        self._finish()
        self.has_failed = is_error(part) and not self._is_gone
        sends = self._outcome.sent_with(part.status, cut_off=part.aborted)
        arguments = commit_arguments(self._events.keys, self._entry, part, sends)
        self._outcome.sends.clear()
        self._commit = asyncio.get_running_loop().create_task(self._send_last(part, arguments))
        return self._commit

    async def _send_last(self, part: Response, arguments: Sequence[str | bytes | int]) -> None:
        await self._sender.settle()  # so that the last part comes last
        await self._events.commit(Commit(self._entry, part), arguments)


def extend(limit: asyncio.Timeout, seconds: float) -> None:
    """Cancel the application in so many seconds from now, 0 for never; nothing happens once it has ended."""
    with suppress(RuntimeError):
        limit.reschedule(asyncio.get_running_loop().time() + seconds if seconds else None)
