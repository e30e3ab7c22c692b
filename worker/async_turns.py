"""Runs the turns and jobs of `async def` consumers on the worker's event loop, many at a time."""

import threading

from asgictl.app.boundary import UserCode
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.layers.base import Entry
from asgictl.layers.redis.refused import Commit
from asgictl.layers.redis.worker_side import commit_arguments
from asgictl.wire.messages import is_error
from asgictl.worker.async_runner import EventLoop

CAPACITY = 100  # turns in hand; a worker reads no more events until one is done


class AsyncTurns:
    """Made for every worker. timeout_seconds: that a turn may take, 0 for ever."""

    def __init__(self, events: EventLoop, timeout_seconds: float = 0) -> None:
        self._events = events
        self._timeout_seconds = timeout_seconds or None
        self._in_hand: set[tuple[bytes, bytes]] = set()
        self._room = threading.Semaphore(CAPACITY)
        self.errors = 0

    def holds(self, entry: Entry) -> bool:
        """Whether this event is in hand already, as after a lost connection, when pending events are read again."""
        return (entry.stream, entry.id) in self._in_hand

    def begin(self, entry: Entry, turn: RunningTurn | RunningJob) -> None:
        """Run a turn or a job and commit it; returns at once while there is room, else when one in hand is done."""
        self._events.start()
        self._room.acquire()
        self._in_hand.add((entry.stream, entry.id))
        turn.outcome.now = self._events.send_now
        self._events.submit(self._run(entry, turn))

    @property
    def running(self) -> int:
        """How many are in hand."""
        return len(self._in_hand)

    def finish(self) -> None:
        """Wait until every turn in hand is committed. The supervisor's deadline bounds the wait."""
        for _ in range(CAPACITY):
            self._room.acquire()
        self._room.release(CAPACITY)

    async def _run(self, entry: Entry, turn: RunningTurn | RunningJob) -> None:
        try:
            done = await turn.run_async(self._timeout_seconds)
            if isinstance(turn, RunningJob) and turn.has_timed_out:
                reason = f"its handler took longer than {self._timeout_seconds:g} s"
                await self._events.dead_letter(entry.event, reason)
            with UserCode("%s %s: its reply cannot be encoded", entry.event.channel, entry.id.decode()) as ended:
                arguments = commit_arguments(self._events.keys, entry, done, turn.outcome.sends, turn.farewell())
            if ended.error is not None:  # there is always a commit
                done = turn.failed()
                arguments = commit_arguments(self._events.keys, entry, done, [])
            self.errors += is_error(done)
            await self._events.commit(Commit(entry, done), arguments)
        finally:
            self._in_hand.discard((entry.stream, entry.id))
            self._room.release()
