"""A worker's loop: read events, run the application, commit what it produced.

One thread runs one loop with a connection of its own. Fast handlers are given many events with one read and their
commits leave together with the next; slow ones are given one, so that no event waits behind another while a worker
elsewhere is free. `async def` consumers are handed on to the process's event loop, many at a time.
"""

import logging
import threading
from time import perf_counter

from asgictl.application import Application
from asgictl.errors import WireError
from asgictl.layers.redis_worker import Entry, RedisWorkerLayer
from asgictl.messages import Request, Response
from asgictl.outcome import Outcome
from asgictl.started import Started
from asgictl.target import kind_of
from asgictl.turn import RunningTurn
from asgictl.worker.async_turns import AsyncTurns
from asgictl.worker.wsgi import WSGIRun

logger = logging.getLogger("asgictl.worker")
PREFETCH = 16  # events of a channel in hand while handlers are fast
FAST_SECONDS = 0.001  # a handler is fast below this; above, its reply does not wait for the next event's


class Loop:
    """Reads, runs and commits, until `stopping` is set; then finishes what it has in hand."""

    def __init__(
        self,
        application: Application,
        layer: RedisWorkerLayer,
        stopping: threading.Event,
        async_turns: AsyncTurns,
        started: Started,
    ) -> None:
        self._started = started
        self.layer = layer
        self._application = application
        self._stopping = stopping
        self._async_turns = async_turns
        self._mean_seconds = 0.0
        self._is_wsgi = {id(mounted): kind_of(mounted) == "WSGI" for mounted in application.http.values()}

    def run(self) -> None:
        """Run until stopped, and send the last commits. The control thread ends a read that waits."""
        while not self._stopping.is_set():
            entries = self.layer.read(PREFETCH if self._mean_seconds < FAST_SECONDS else 1)
            if self.layer.settled:
                self._started.clear()
            for entry in entries:
                self._started.note(entry.stream, entry.id)
                self._handle(entry)
        self.layer.flush()

    def _handle(self, entry: Entry) -> None:
        began = perf_counter()
        if isinstance(entry.event, Request):
            outcome = Outcome()
            with outcome.collecting():
                reply = self._http(entry.event, entry.id)
            self.layer.commit(entry, reply, outcome.broadcasts)
        elif not self._async_turns.holds(entry):
            try:
                turn = RunningTurn(self._application, entry.event)
            except WireError:
                logger.exception("event %s passed over", entry.id)
                self.layer.pass_over(entry.stream, entry.id)
                return
            if turn.is_async:
                self._async_turns.begin(entry, turn)
                return
            done = turn.run()
            self.layer.commit(entry, done, turn.outcome.broadcasts, turn.farewell())
        seconds = perf_counter() - began
        self._mean_seconds += (seconds - self._mean_seconds) / 8
        if seconds > FAST_SECONDS:
            self.layer.flush()

    def _http(self, event: Request, entry: bytes) -> Response:
        mounted = self._application.mount(event.scope.path)
        if mounted is None:
            return plain(event, 404, "Not Found")
        if not self._is_wsgi[id(mounted)]:
            return plain(event, 501, "ASGI applications are not served in split mode yet; use --mode=inprocess")
        return WSGIRun(event, self.layer.send_part, entry).run(mounted)


def plain(event: Request, status: int, text: str) -> Response:
    """Return a whole plain-text response."""
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return Response(event.connection, 0, status, headers, body, attempt=event.attempt)
