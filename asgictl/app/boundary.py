"""The boundary around user code: any exception ends one event, and nothing else.

CancelledError, SystemExit, KeyboardInterrupt and GeneratorExit are no Exceptions: asyncio and threads let them through
to whoever runs them. Raised by a consumer, a view or a job they say only that this one has failed.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, TypeVar

from asgictl.app import tracing
from asgictl.app.django import is_set_up
from asgictl.app.runtime import failures
from asgictl.app.slow import watch
from asgictl.machine import forks
from asgictl.wire.messages import Headers

T = TypeVar("T")
NO_HEADERS: Headers = []
_imported = Context()  # as TARGET's module has left it


class UserCode:
    """Wrap a call of user code: `with UserCode("%s %s failed", channel, path) as ended:`.

    error: what the code raised, None when it returned. It is logged once, unless it is one of `expected`, and goes no
    further. is_cancellable: somebody else than the code itself may cancel this task; that cancellation alone passes.
    entry: of an event that --slow-seconds is about, as slow.Watch.begin() has it; headers: its own, for its trace.
    A child that the code has forked ends here.
    """

    __slots__ = ("_arguments", "_entry", "_expected", "_headers", "_joined", "_text", "error", "is_cancellable")

    def __init__(
        self,
        text: str,
        *arguments: object,
        expected: type[BaseException] | tuple[()] = (),
        is_cancellable: bool = False,
        entry: bytes | None = None,
        headers: Headers = NO_HEADERS,
    ) -> None:
        self.error: BaseException | None = None
        self._text = text
        self._arguments = arguments
        self._entry = entry
        self._expected = expected
        self._headers = headers
        self._joined: tracing.Joined | None = None
        self.is_cancellable: bool = is_cancellable

    def __enter__(self) -> "UserCode":
        if watch.seconds and self._entry is not None:
            watch.begin(id(self), self._name, self._entry)
        if tracing.is_installed and self._headers:
            self._joined = tracing.join(self._headers, self._entry or b"", self._name)
        return self

    def _name(self) -> str:
        return (self._text % self._arguments).partition(" failed")[0]

    def has_answered(self) -> None:
        """Stop watching: the response has begun, and its body, such as a stream, may take any time."""
        if watch.seconds:
            watch.end(id(self))

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        self.error = error
        if watch.seconds:
            watch.end(id(self))
        if self._joined:
            tracing.leave(self._joined, None if isinstance(error, self._expected) else error)
        if forks.is_child:
            if isinstance(error, Exception):
                failures.error(self._text, *self._arguments, exc_info=error)
            forks.end_child()
        if error is None or (self.is_cancellable and is_cancelled(error)):
            return False
        if not isinstance(error, self._expected):
            failures.error(self._text, *self._arguments, exc_info=error)
        return True


def is_cancelled(error: BaseException) -> bool:
    """Return whether the running task itself was cancelled, not something that it awaited."""
    task = None
    with suppress(RuntimeError):  # no event loop runs in this thread
        task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def keep_context() -> None:
    """Keep the current context variables for all events; called once TARGET is imported."""
    global _imported
    _imported = copy_context()


def fresh_context() -> Context:
    """Return the context of one event, which sees nothing that other events have set."""
    return _imported.copy()


def thread_context() -> Context:
    """Return the context of which each event of this thread gets a copy, as of fresh_context().

    Django keeps its caches in a context variable: opened here, their connections last as long as the thread.
    """
    context = fresh_context()
    if is_set_up("django.core.cache"):
        for alias in sys.modules["django.conf"].settings.CACHES:
            with UserCode("", expected=BaseException):  # one that cannot be made says so when it is used
                context.run(sys.modules["django.core.cache"].caches.__getitem__, alias)
    return context


async def in_its_own_task(running: Coroutine[Any, Any, T], failed: Callable[[], T]) -> T:
    """Await user code in a task of its own, so that what it cancels, now or later, is never a commit.

    Its context is fresh. failed: returns what stands for its result when it has cancelled itself.
    """
    task = asyncio.create_task(running, context=fresh_context())
    try:
        return await task
    except asyncio.CancelledError as error:
        if is_cancelled(error):
            raise
        return failed()
