"""Background work: the message that a background consumer is called with, and one job being run."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from asgictl.app.application import Application, is_async, milliseconds
from asgictl.app.boundary import UserCode, in_its_own_task
from asgictl.app.outcome import Outcome, SendNow
from asgictl.app.turn import close_old_connections, close_old_connections_async
from asgictl.wire.messages import Job, decode_state


class RetryLater(Exception):
    """Raised by a background consumer: it is to be called with the same message again, in so many seconds at least.

    What this call has sent is dropped, as after any exception, but for what it sent immediately. `attempt` is one more
    each time; those who ask may do so for ever, since only workers' deaths are counted against a message.
    Raises ConsumerError for a time that Channel.send would not take as a delay.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.milliseconds = milliseconds(seconds)


class BackgroundMessage:
    """What a background consumer is called with.

    content: the dict that was sent; channel: the name it was sent to. id: stable over reruns; attempt: 1, and one more
    for each rerun, because its worker died or because the consumer raised RetryLater. After three deaths, counted from
    its sending or from the last RetryLater, it is a dead letter. Another exception is logged and ends it.
    """

    def __init__(self, job: Job) -> None:
        self.content: dict[str, Any] = decode_state(job.content)
        self.channel = job.name
        self.id = job.id
        self.attempt = job.attempt


class RunningJob:
    """One job being run, to be used as a RunningTurn is; its reply is None. Raises WireError."""

    def __init__(self, application: Application, job: Job, now: SendNow | None = None) -> None:
        self.outcome = Outcome(now, application.depths)
        self.has_timed_out = False  # and was cancelled for it
        self._job = job
        self._message = BackgroundMessage(job)
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
