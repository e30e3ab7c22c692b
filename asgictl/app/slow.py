"""Logs each event that takes longer than --slow-seconds, with a stack taken while it ran.

A thread samples what runs, four times in --slow-seconds. Without the option nothing is registered and no thread runs.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType, FrameType
from typing import Any

from asgictl.app.runtime import failures

LEAST_WAIT_SECONDS = 0.01
FRAMES = 20  # of a stack, the innermost


class Running:
    """One running event of this thread or task. waited_seconds: its wait before, None if unknown."""

    def __init__(self, name: Callable[[], str], waited_seconds: float | None) -> None:
        self.began: float = time.perf_counter()
        self.stack: str = ""
        self._name = name
        self._waited_seconds = waited_seconds
        self._thread = threading.get_ident()
        self._task: asyncio.Task[Any] | None = None
        with suppress(RuntimeError):  # no event loop runs in this thread
            self._task = asyncio.current_task()

    def sample(self) -> None:
        """Keep the current stack. From another thread."""
        frames = frames_of(self._task.get_coro()) if self._task else []
        if not frames:  # sync code, or a task that runs at this moment
            frames = [frame for frame, _ in traceback.walk_stack(sys._current_frames().get(self._thread))][::-1]
        summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames[-FRAMES:])
        self.stack = "".join(summary.format())

    def log(self) -> None:
        """Log the event, which has ended."""
        waited = "" if self._waited_seconds is None else f" waited {self._waited_seconds:.3f} s and"
        seconds = time.perf_counter() - self.began
        failures.warning("slow: %s%s ran %.3f s; while it ran:\n%s", self._name(), waited, seconds, self.stack.rstrip())


def frames_of(coroutine: Any) -> list[FrameType]:
    """Return the frames of a coroutine that waits, the innermost last; none of one that runs."""
    frames: list[FrameType] = []
    while isinstance(coroutine, CoroutineType):
        if coroutine.cr_running or coroutine.cr_frame is None:
            return []
        frames.append(coroutine.cr_frame)
        coroutine = coroutine.cr_await
    return frames


class Watch:
    """Holds the running events, and samples their stacks. seconds: past which one is slow; 0 for never."""

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._running: dict[int, Running] = {}

    def start(self, seconds: float) -> None:
        """Start the thread; called once, by what runs the application, after any fork."""
        self.seconds = seconds
        if seconds:
            threading.Thread(target=self._run, name="slow", daemon=True).start()

    def begin(self, key: int, name: Callable[[], str], entry: bytes) -> None:
        """Register an event that begins here. entry: its id in a stream of Redis, which tells since when it waits."""
        milliseconds = int(entry.partition(b"-")[0] or 0)
        waited_seconds = max(time.time() - milliseconds / 1000, 0.0) if milliseconds else None
        self._running[key] = Running(name, waited_seconds)

    def end(self, key: int) -> None:
        """Unregister an event that has ended, or whose response has begun; log it if it was slow."""
        if (running := self._running.pop(key, None)) and running.stack:
            running.log()

    def _run(self) -> None:
        while True:
            time.sleep(max(self.seconds / 4, LEAST_WAIT_SECONDS))
            self.sample()

    def sample(self) -> None:
        """Keep the stacks of events that have become slow."""
        now = time.perf_counter()
        for running in list(self._running.values()):
            if not running.stack and now - running.began >= self.seconds:
                running.sample()


watch: Watch = Watch()
