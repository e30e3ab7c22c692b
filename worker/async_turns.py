"""Runs the turns of `async def` consumers: an event loop in a thread of its own, with its own link to Redis."""

import asyncio
import logging
import threading
from functools import partial

import hiredis

from asgictl.layers.base import Entry
from asgictl.layers.keys import Keys
from asgictl.layers.link import Link
from asgictl.layers.redis_worker import COMMIT, commit_arguments
from asgictl.messages import Broadcast, Frames, encode
from asgictl.turn import RunningTurn

logger = logging.getLogger("asgictl.worker")
CAPACITY = 100  # turns in hand; a worker reads no more events until one is done
RETRY_SECONDS = 0.2


class AsyncTurns:
    """Made for every worker; the thread starts with the first turn."""

    def __init__(self, url: str, name: str) -> None:
        self._keys = Keys(name)
        self._loop = asyncio.new_event_loop()
        self._link = Link(url)
        self._in_hand: set[tuple[bytes, bytes]] = set()
        self._room = threading.Semaphore(CAPACITY)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether this event is in hand already, as after a lost connection, when pending events are read again."""
        return (entry.stream, entry.id) in self._in_hand

    def begin(self, entry: Entry, turn: RunningTurn) -> None:
        """Run a turn and commit it; returns at once while there is room, else when a turn in hand is done."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop.run_forever, name="async-turns", daemon=True)
                self._thread.start()
                asyncio.run_coroutine_threadsafe(self._link.start(), self._loop).result()
        self._room.acquire()
        self._in_hand.add((entry.stream, entry.id))
        turn.outcome.now = self._send_now
        asyncio.run_coroutine_threadsafe(self._run(entry, turn), self._loop)

    def finish(self) -> None:
        """Wait until every turn in hand is committed. The supervisor's deadline bounds the wait."""
        for _ in range(CAPACITY):
            self._room.acquire()
        self._room.release(CAPACITY)

    def _send_now(self, sent: Frames | Broadcast) -> None:
        """For immediately=True, on the event loop or in a thread that sync_to_async runs."""
        key = (
            (self._keys.broadcast,)
            if isinstance(sent, Broadcast)
            else (self._keys.replies(sent.connection), "NOMKSTREAM")
        )
        send = partial(self._link.call, "XADD", *key, "*", *encode(sent), answered=_ignored)
        if threading.current_thread() is self._thread:
            send()  # at once: the commit must not overtake it
        else:
            self._loop.call_soon_threadsafe(send)

    async def _run(self, entry: Entry, turn: RunningTurn) -> None:
        try:
            done = await turn.run_async()
            await self._commit(*commit_arguments(self._keys, entry, done, turn.outcome.broadcasts, turn.farewell()))
        finally:
            self._in_hand.discard((entry.stream, entry.id))
            self._room.release()

    async def _commit(self, *arguments: str | bytes | int) -> None:
        """Commit for as long as Redis is away; a repeated commit is refused there."""
        while True:
            try:
                await self._link.ask("EVAL", COMMIT, *arguments)
            except ConnectionError:
                await asyncio.sleep(RETRY_SECONDS)
            except hiredis.ReplyError as error:
                logger.error("Redis refused a commit: %s", error)
                return
            else:
                return


def _ignored(_reply: object) -> None:
    """What is sent outside of a commit may be lost with Redis."""
