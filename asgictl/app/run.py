"""Runs one event of a WebSocket, a turn, or one job: calls its consumer, and has the reply that they add up to.

Both modes run turns through here, so a consumer behaves the same in a worker and in the server's own process.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from asgiref.sync import sync_to_async
from msgspec.structs import replace

from asgictl.app.application import Application, Consumer, Route, is_async
from asgictl.app.boundary import UserCode, in_its_own_task
from asgictl.app.message import BackgroundMessage, Message, RetryLater, Turn
from asgictl.app.outcome import Outcome, SendNow
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
    encode_state,
)

LAST_TURN = 1 << 40  # newer than any that the interface itself has numbered
STATE_BYTES = 64 << 10


class RunningTurn(Turn):
    """One turn being run.

    Use run() from a thread, or await run_async() on an event loop. Neither raises for what a consumer does: an
    exception is logged once and closes the connection with 1011, or refuses its handshake with 500.
    """

    def __init__(self, application: Application, event: TurnEvent, now: SendNow | None = None) -> None:
        super().__init__(event, Outcome(now, application.depths))
        self.consumer: Consumer | None = None
        self.is_async = False  # its calls are to be awaited
        self.run_seconds = 0.0
        found: tuple[Route, dict[str, str]] | None = application.route(self.scope.local_path)
        if found:
            self.consumer = found[0].consumers.get(self.kind)
            self.params = found[1]
            self.is_async = self.kind in found[0].async_kinds
        self._found = found is not None
        self._says_farewell = found is not None and "disconnect" in found[0].consumers

    def farewell(self) -> bytes:
        """Return the disconnect event to run should the interface die, when this turn makes it new; else b""."""
        event, reply = self.event, self._reply
        if not self._says_farewell or isinstance(event, Disconnect) or not (reply.accept or reply.state):
            return b""
        state = reply.state or event.state
        return encode(Disconnect(event.connection, LAST_TURN, 1, event.scope, state, ABNORMAL_CLOSURE, ""))[1]

    def _messages(self) -> Iterator[Message]:
        """Yield what the consumer is called with; nothing after it closed the connection."""
        frames = self.event.frames if isinstance(self.event, Receive) else [None]
        for position, frame in enumerate(frames):
            if self.consumer and self.outcome.close is None:
                yield Message(self, position, frame)

    def run(self) -> Done:
        """Call the consumer, one message after another, in this thread; returns the reply to commit."""
        close_old_connections()
        with self._answering():
            for message in self._messages():
                self.consumer(message)  # type: ignore[misc]  # no consumer, no messages
        close_old_connections()
        return self._reply

    async def run_async(self, timeout_seconds: float | None = None) -> Done:
        """The same for an `async def` consumer, which is cancelled when its time is over: an exception like others."""
        return await in_its_own_task(self._run_async(timeout_seconds), self.failed)

    async def _run_async(self, timeout_seconds: float | None) -> Done:
        await close_old_connections_async()
        with self._answering():
            async with asyncio.timeout(timeout_seconds):
                for message in self._messages():
                    await self.consumer(message)  # type: ignore[misc]  # is_async says that it is awaitable
        await close_old_connections_async()
        return self._reply

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Around the consumer's calls: afterwards there is a reply, whatever the consumer did."""
        began = perf_counter()
        with UserCode("%s of %s failed", self.event.channel, self.scope.path) as ended:
            with self.outcome:
                try:
                    yield
                finally:
                    self.run_seconds = perf_counter() - began
            self._reply = self._done()
        if ended.error is not None:
            self._reply = self.failed()

    def _done(self) -> Done:
        event, outcome, state = self.event, self.outcome, b""
        if "state" in self.__dict__:  # only a state that was looked at can have changed
            state = self._encoded_state()
        if isinstance(event, Connect) and not self._found:
            outcome.close = Close(INTERNAL_ERROR, "", 404)  # another release had the path
        elif isinstance(event, Connect) and self.consumer is None:
            outcome.accept = Accept(None, [])
        if isinstance(event, Connect) and outcome.accept is None and outcome.close is None:
            raise ConsumerError(f"the connect consumer of {self.scope.path} called neither accept() nor close()")
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
            run_seconds=self.run_seconds,
        )

    def _encoded_state(self) -> bytes:
        try:
            state = encode_state(self.state, self.event.state) or b"\x80"  # an emptied dict is a change too
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConsumerError(f"message.state holds what MessagePack cannot carry: {error}") from error
        if len(state) > STATE_BYTES:
            raise ConsumerError(f"message.state is {len(state)} bytes encoded; {STATE_BYTES} is the most")
        return b"" if state == (self.event.state or b"\x80") else state

    def failed(self) -> Done:
        """Return an exception's reply: nothing of what was buffered leaves, and the connection ends."""
        self.outcome = Outcome(is_over=True)
        status = 500 if isinstance(self.event, Connect) else 403
        close, event = Close(INTERNAL_ERROR, "", status), self.event
        return Done(
            *(event.connection, event.number, [], b"", None, close, [], [], event.attempt), run_seconds=self.run_seconds
        )


class RunningJob:
    """One job being run, to be used as a RunningTurn is; its reply is None. Raises WireError."""

    def __init__(self, application: Application, job: Job, now: SendNow | None = None) -> None:
        self.outcome = Outcome(now, application.depths)
        self.has_timed_out = False  # and was cancelled for it
        self._job = job
        self._message = BackgroundMessage(job)
        if job.name not in application.background:
            raise WireError(f"nobody has the channel {job.channel!r}")
        self._consumer = application.background[job.name]
        self.is_async = is_async(self._consumer)

    def farewell(self) -> bytes:
        """No connection ends with it."""
        return b""

    def run(self) -> None:
        """Call the consumer in this thread."""
        close_old_connections()
        with self._ending():
            self._consumer(self._message)
        close_old_connections()

    async def run_async(self, timeout_seconds: float | None = None) -> None:
        """The same for an `async def` consumer, which is cancelled when its time is over."""
        await in_its_own_task(self._run_async(timeout_seconds), self.failed)

    async def _run_async(self, timeout_seconds: float | None) -> None:
        await close_old_connections_async()
        with self._ending():
            async with asyncio.timeout(timeout_seconds) as limit:
                await self._consumer(self._message)  # type: ignore[misc]  # is_async says that it is awaitable
        self.has_timed_out = limit.expired()
        await close_old_connections_async()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        job = self._job
        with UserCode("%s failed with message %s", job.channel, job.id) as ended:
            try:
                with self.outcome:
                    yield
            except RetryLater as later:
                again = replace(job, attempt=job.attempt + 1, delay_milliseconds=later.milliseconds)
                self.outcome = Outcome(sends=[again])
        if ended.error is not None:
            self.failed()

    def failed(self) -> None:
        """An exception ends a message, and nothing of what was buffered leaves."""
        self.outcome = Outcome()


def close_old_connections() -> None:
    """Around every event, as Django does around every request; only where Django's ORM is loaded."""
    if "django.db" in sys.modules:
        with UserCode("Django's old database connections could not be closed"):
            sys.modules["django.db"].close_old_connections()


async def close_old_connections_async() -> None:
    """The same from an event loop; Django's connections belong to threads."""
    if "django.db" in sys.modules:
        await sync_to_async(close_old_connections)()
