"""Runs one turn of a WebSocket or one job: calls its consumers and returns the reply.

Both modes run turns through here, so a consumer behaves the same in a worker and in the server's own process.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async
from msgspec.structs import replace

from asgictl.app.application import Application, Route, is_async
from asgictl.app.boundary import UserCode, in_its_own_task
from asgictl.app.django import is_set_up
from asgictl.app.message import BackgroundMessage, Message, RetryLater, Turn
from asgictl.app.outcome import Outcome, SendNow, encoded
from asgictl.errors import ConsumerError, WireError
from asgictl.wire.messages import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    Accept,
    Close,
    Connect,
    Disconnect,
    Done,
    Job,
    Receive,
    TurnEvent,
    encode,
    failed_turn,
)

LAST_TURN = 1 << 40  # newer than any that the interface itself has numbered
STATE_BYTES = 64 << 10
R = TypeVar("R")


class Run(Generic[R]):
    """One event being run: what all kinds have alike. R: the reply to commit.

    Use run() from a thread, or await run_async() on an event loop. Neither raises for what a consumer does: an
    exception is logged once, and failed() makes the reply.
    outcome: what leaves with the reply. is_async: the consumer's calls are to be awaited. has_timed_out: it was
    cancelled because its time was over.
    """

    outcome: Outcome
    is_async = False
    has_timed_out: bool = False
    _began = 0.0
    _consumer: Callable[[Any], Any] | None = None
    _code: UserCode
    _reply: R

    @property
    def error(self) -> BaseException | None:
        """Return the exception that the consumer raised."""
        return self._code.error

    def _messages(self) -> Iterable[Message | BackgroundMessage]:
        """Return the messages with which the consumer is called."""
        raise NotImplementedError

    def _done(self) -> R:
        """Return the reply of a consumer that has returned. What it raises is the consumer's fault."""
        raise NotImplementedError

    def failed(self, error: BaseException | None = None) -> R:
        """Return the reply after an exception, without the buffered effects."""
        raise NotImplementedError

    def run(self) -> R:
        """Call the consumer in this thread; returns the reply to commit."""
        close_old_connections()
        self._began = perf_counter()
        with self._code, self.outcome:
            for message in self._messages():
                self._consumer(message)  # type: ignore[misc]  # no consumer, no messages
            self._reply = self._done()
        reply = self._end()
        close_old_connections()
        return reply

    async def run_async(self, timeout_seconds: float | None = None) -> R:
        """Await an `async def` consumer, which is cancelled at --timeout; returns the reply to commit."""
        self._reply = await in_its_own_task(self._run_async(timeout_seconds), self.failed)
        return self._reply

    async def _run_async(self, timeout_seconds: float | None) -> R:
        await close_old_connections_async()
        self._began = perf_counter()
        with self._code, self.outcome:
            async with asyncio.timeout(timeout_seconds) as limit:
                for message in self._messages():
                    await self._consumer(message)  # type: ignore[misc]  # is_async says that it is awaitable
            self._reply = self._done()
        self.has_timed_out = limit.expired()
        reply = self._end()
        await close_old_connections_async()
        return reply

    def _end(self) -> R:
        """Return the reply; there is one even if the consumer failed."""
        if self._code.error is not None:
            self._reply = self.failed(self._code.error)
        return self._reply


class RunningTurn(Turn, Run[Done]):
    """One turn being run. An exception closes the connection with 1011, or refuses its handshake with 500."""

    def __init__(
        self, application: Application, event: TurnEvent, now: SendNow | None = None, entry: bytes = b""
    ) -> None:
        super().__init__(event, Outcome(now, application.depths))
        self.outcome.headers = headers = self.scope.headers
        self._code = UserCode("%s %s failed", event.channel, self.scope.path, entry=entry, headers=headers)
        self._route: Route | None = None
        if found := application.route(self.scope.local_path):
            self._route = found[0]
            self.params: dict[str, str] = found[1]
            self._consumer = self._route.consumers.get(self.kind)
            self.is_async: bool = self.kind in self._route.async_kinds

    def last_will(self) -> bytes:
        """Return the disconnect event to run should the interface die, when this turn makes it new; else b""."""
        event, reply = self.event, self._reply
        hears_of_it = self._route is not None and "disconnect" in self._route.consumers
        if not hears_of_it or isinstance(event, Disconnect) or not (reply.accept or reply.state):
            return b""
        state = reply.state or event.state
        return encode(Disconnect(event.connection, LAST_TURN, 1, event.scope, state, ABNORMAL_CLOSURE, ""))[1]

    def _messages(self) -> Iterator[Message]:
        """Yield nothing after a message whose consumer closed the connection."""
        frames = self.event.frames if isinstance(self.event, Receive) else [None]
        for position, frame in enumerate(frames):
            if self._consumer and self.outcome.close is None:
                yield Message(self, position, frame)

    def _done(self) -> Done:
        event, outcome, state = self.event, self.outcome, b""
        if "state" in self.__dict__:  # only a state that was looked at can have changed
            state = encoded("message.state", self.state, STATE_BYTES, event.state) or b"\x80"  # emptied is a change too
            if state == (event.state or b"\x80"):
                state = b""
        if isinstance(event, Connect) and self._route is None:
            outcome.close = Close(INTERNAL_ERROR, "", 404)  # another release had the path
        elif isinstance(event, Connect) and self._consumer is None:
            outcome.accept = Accept(None, [])
        if isinstance(event, Connect) and outcome.accept is None and outcome.close is None:
            raise ConsumerError(f"the connect consumer of {self.scope.path} called neither accept() nor close()")
        own = outcome.own_copies(event.connection) if outcome.memberships and outcome.sends else []
        return Done(
            event.connection,
            event.number,
            outcome.frames,
            state,
            outcome.accept,
            outcome.close,
            outcome.groups(joined=True),
            outcome.groups(joined=False),
            event.attempt,
            run_seconds=perf_counter() - self._began,
            own=own,
        )

    def failed(self, _error: BaseException | None = None) -> Done:
        """Return the reply after an exception, which closes the connection without the buffered effects."""
        self.outcome: Outcome = Outcome(is_over=True)
        seconds = perf_counter() - self._began
        return failed_turn(self.event, 500 if isinstance(self.event, Connect) else 403, run_seconds=seconds)


class RunningJob(Run[None]):
    """One job being run; its reply is None. Raises WireError. An exception ends its message."""

    def __init__(self, application: Application, job: Job, now: SendNow | None = None, entry: bytes = b"") -> None:
        self.outcome: Outcome = Outcome(now, application.depths, job.headers)
        self._code = UserCode(
            *("%s failed with message %s", job.channel, job.id), expected=RetryLater, entry=entry, headers=job.headers
        )
        self._job = job
        self._message = BackgroundMessage(job)
        if job.name not in application.background:
            raise WireError(f"no consumer for the channel {job.channel!r}")
        self._consumer = application.background[job.name]
        self.is_async: bool = is_async(self._consumer)

    def last_will(self) -> bytes:
        """No connection ends with it."""
        return b""

    def _messages(self) -> Iterable[BackgroundMessage]:
        return (self._message,)

    def _done(self) -> None:
        """Nobody waits for a reply."""

    def failed(self, error: BaseException | None = None) -> None:
        """Nothing of what was buffered leaves, but the same job once more, when the consumer has asked for that."""
        self.outcome, job = Outcome(), self._job
        if isinstance(error, RetryLater):
            self.outcome.sends = [replace(job, attempt=job.attempt + 1, delay_milliseconds=error.milliseconds)]


def close_old_connections() -> None:
    """Close stale database connections around every event, if Django's ORM is set up."""
    if is_set_up("django.db"):
        with UserCode("Django's old database connections could not be closed"):
            sys.modules["django.db"].close_old_connections()


async def close_old_connections_async() -> None:
    """The same from an event loop; Django's connections belong to threads."""
    if is_set_up("django.db"):
        await sync_to_async(close_old_connections)()
