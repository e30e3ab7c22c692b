"""A worker's loop: read events, run the application, commit what it produced.

One thread runs one loop with a connection of its own. Fast handlers are given many events with one read and their
commits leave together with the next; slow ones are given one, so that no event waits behind another while a worker
elsewhere is free. `async def` consumers are handed on to the process's event loop, many at a time.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from time import perf_counter

from asgictl.app.application import Application
from asgictl.app.boundary import UserCode, thread_context
from asgictl.app.outcome import Outcome
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.layers.base import Entry, WorkerLayer
from asgictl.layers.redis.started import Started
from asgictl.machine import forks
from asgictl.wire.error_responses import APPLICATION_FAILED, error_response
from asgictl.wire.messages import Job, LastReply, Request, Response, Sent, failed_turn, is_error, may_repeat
from asgictl.wire.naming import name_of
from asgictl.worker.asgi import ASGIRuns
from asgictl.worker.async_runner import AsyncTurns
from asgictl.worker.sync_body import LayerFlow
from asgictl.worker.wsgi import WSGIRun

logger = logging.getLogger("asgictl.worker")
PREFETCH = 16  # events of a channel while handlers are fast
FAST_SECONDS = 0.001  # a handler is fast below this; above, its reply does not wait for the next event's


class Loop:
    """Reads, runs and commits, until `stopping` is set; then finishes what runs and releases the rest.

    prefetched: what was read and has not started; whoever pops an entry has it, this thread from the left, the control
    thread from the right. unreleased: what that thread popped and could not release. running: what runs, when it began,
    and since when it has not waited for its client. last: what began last. is_reading: it has nothing in flight, and
    waits. awake: set whenever it goes on, for a watchdog that sleeps meanwhile.
    """

    def __init__(
        self,
        application: Application,
        layer: WorkerLayer,
        stopping: threading.Event,
        async_turns: AsyncTurns | None,
        asgi: ASGIRuns | None,
        started: Started,
        prefetch: int = PREFETCH,
    ) -> None:
        self.layer = layer
        self.prefetched: deque[Entry] = deque()
        self.unreleased: deque[Entry] = deque()
        self.running: Entry | None = None
        self.last: Entry | None = None
        self.is_reading: bool = False
        self.awake: threading.Event = threading.Event()
        self.began: float = 0.0
        self.since: float = 0.0
        self.events: int = 0  # handled so far
        self.errors: int = 0  # those of them that failed
        self.busy_seconds: float = 0.0  # what they took, but for those that run on the event loop
        self.thread: int = 0  # its ident, once it runs
        self._started = started
        self.application = application
        self._stopping = stopping
        self._async_turns = async_turns
        self._asgi = asgi
        self._prefetch = prefetch
        self._mean_seconds = 0.0
        self._is_careful = False  # events that may not run twice are about, so no more than one is read
        self._wsgi: WSGIRun | None = None  # of the request that runs
        self._context = Context()

    def run(self) -> None:
        """Run until stopped, and send the last commits. The control thread ends a read that waits."""
        self.thread = threading.get_ident()
        self._context = thread_context()
        while not self._stopping.is_set():
            if self.unreleased:
                self.layer.release(drained(self.unreleased))
            is_fast = self._mean_seconds < FAST_SECONDS and not self._is_careful
            self.is_reading = True
            entries = self.layer.read(self._prefetch if is_fast else 1)
            self.is_reading = False
            if entries and not self.awake.is_set():
                self.awake.set()
            if self.layer.settled:
                self._started.clear()
            self._take(entries)
            while not self._stopping.is_set() and (entry := self._next()):
                self._run(entry)
        self.layer.release(self.take_prefetched() + drained(self.unreleased))
        self.layer.flush()

    def _take(self, entries: list[Entry]) -> None:
        """Prefetch events: first the one that may not run twice, last those that a worker has died of."""
        careful: list[Entry] = []
        fresh: list[Entry] = []
        again: list[Entry] = []
        for entry in entries:
            event = entry.event
            (careful if not may_repeat(event) else fresh if event.attempt <= 1 else again).append(entry)
        self._is_careful = bool(careful)
        self.prefetched.extend(careful[:1] + fresh)
        self.layer.release(careful[1:])
        self.prefetched.extend(again)

    def _next(self) -> Entry | None:
        try:
            return self.prefetched.popleft()
        except IndexError:
            return None

    def busy_so_far(self) -> float:
        """Return busy_seconds and what the event that runs has taken. From any thread."""
        return self.busy_seconds + (perf_counter() - self.began if self.running else 0.0)

    def now(self) -> list[tuple[float, Callable[[], str]]]:
        """Return when the event that runs began, and what names it. From any thread."""
        return [(self.began, partial(name_of, entry.event))] if (entry := self.running) else []

    def take_prefetched(self) -> list[Entry]:
        """Return what has not started, for others to run. Called by the control thread too, beside a slow handler."""
        return drained(self.prefetched)

    def failure(self, entry: Entry, status: int, text: str) -> LastReply:
        """Return what ends an event when its handler, which runs, does not. Called by the control thread."""
        event, wsgi = entry.event, self._wsgi
        if isinstance(event, Job):
            return None
        if isinstance(event, Request):
            return (
                wsgi.failure(status, text)
                if wsgi and wsgi.entry == entry.id
                else error_response(event.connection, status, text, event.attempt)
            )
        return failed_turn(event, status, text)

    def _run(self, entry: Entry) -> None:
        if entry.event.attempt > 1:  # should it kill this worker too, nothing goes with it
            self.layer.release(self.take_prefetched())
            self.layer.settle()
            if self.layer.settled:
                self._started.clear()
        self._started.note(entry.stream, entry.id)
        began = self.began = self.since = perf_counter()
        self.running = self.last = entry
        try:
            is_handed_on = self._context.copy().run(self._handle, entry)
        except Exception as error:  # noqa: BLE001 - what one event has wrong must not end the worker
            is_handed_on = False
            self._pass_over(entry, error)
        finally:
            self.running = self._wsgi = None
            forks.end_child()
        self.events += 1
        if is_handed_on:
            return
        seconds = perf_counter() - began
        self.busy_seconds += seconds
        self._mean_seconds += (seconds - self._mean_seconds) / 8
        if seconds > FAST_SECONDS:
            self.layer.flush()

    def _handle(self, entry: Entry) -> bool:
        """Run an event and commit it; returns whether it runs on elsewhere, on the event loop."""
        if self._asgi and self._asgi.serves(entry):
            if self._asgi.begin(entry):
                self.running = None  # no handler takes the time that follows
                self.layer.release(self.take_prefetched())
                self._asgi.wait_for_room(self._stopping)
            return True
        if isinstance(entry.event, Request):
            outcome = Outcome(self.layer.send_now, self.application.depths, entry.event.scope.headers)
            with outcome:
                reply = self._http(entry, entry.event)
            self._commit(entry, reply, outcome.sent_with(reply.status, cut_off=reply.aborted))
        else:
            turn: RunningTurn | RunningJob
            if isinstance(entry.event, Job):
                turn = RunningJob(self.application, entry.event, self.layer.send_now, entry.id)
            else:
                turn = RunningTurn(self.application, entry.event, self.layer.send_now, entry.id)
            if turn.is_async and self._async_turns:
                if not self._async_turns.holds(entry):
                    self._async_turns.begin(entry, turn)
                return True
            done = turn.run()
            self._commit(entry, done, turn.outcome.sends, turn.last_will())
        return False

    def _pass_over(self, entry: Entry, error: Exception) -> None:
        """Let go of an event that cannot be run; an interface that waits for it hears that it has failed."""
        if not isinstance(entry.event, Job):
            self._commit(entry, self.failure(entry, 500, APPLICATION_FAILED), [])
        self.layer.pass_over(entry.stream, entry.id, error)

    def _commit(self, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes = b"") -> None:
        """Commit an event. A reply that cannot be encoded ends it as an exception does: there is always a commit."""
        with UserCode("%s: its reply cannot be encoded", entry) as ended:
            self.layer.commit(entry, reply, sends, last_will)
        if ended.error is not None:
            reply = self.failure(entry, 500, APPLICATION_FAILED)
            self.layer.commit(entry, reply, [])
        self.errors += is_error(reply)

    def _http(self, entry: Entry, event: Request) -> Response:
        mounted = self.application.mount(event.scope.local_path)
        if mounted is None:
            return error_response(event.connection, 404, "Not Found", event.attempt)
        self._wsgi = WSGIRun(LayerFlow(entry, event, self.layer, self._progressed))
        return self._wsgi.run(mounted)

    def _progressed(self) -> None:
        self.since = perf_counter()


def drained(entries: deque[Entry]) -> list[Entry]:
    """Empty a deque from which another thread pops too; returns what this one got."""
    taken = []
    while entries:
        try:
            taken.append(entries.pop())
        except IndexError:  # the other thread was faster
            break
    return taken
