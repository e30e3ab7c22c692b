"""The worker's event loop: a thread of its own, with its own link to Redis, for everything that is async.

Turns and jobs of `async def` consumers run on it; so do ASGI applications (asgi.py).
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Any, TypeVar

import hiredis

from asgictl.app.boundary import UserCode, fresh_context
from asgictl.app.loops import LastingLoop
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.layers.base import REFUSED_SECONDS, Answered, Entry, Reject, ignored
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.link import ALWAYS, CUT, UNSENT, Link
from asgictl.layers.redis.reader import Followed, Reader, create_stream
from asgictl.layers.redis.refused import AGAIN_SECONDS, REFUSED, Commit, end_commands
from asgictl.layers.redis.send_commands import Broadcasts, Command, published, reply_command
from asgictl.layers.redis.worker_side import COMMIT, COMMIT_SHA, commit_arguments
from asgictl.wire.messages import (
    Closed,
    Event,
    Frames,
    Response,
    Sent,
    Want,
    WorkerMessage,
    decode_worker_message,
    encode,
    is_error,
)
from asgictl.wire.naming import name_of

logger = logging.getLogger("asgictl.worker")
T = TypeVar("T")
SOFTWARE_STATUS = 70  # sysexits.h, EX_SOFTWARE
CAPACITY = 100  # turns in flight; a worker reads no more events until one is done


class EventLoop:
    """Made for every worker; the thread starts when it is first needed.

    inbox: where messages to what runs here go. on_message: hears them. on_forgotten: called when Redis has forgotten
    everything, and with it that anything runs here.
    """

    def __init__(self, url: str, name: str, identity: str, reject: Reject = ignored) -> None:
        self.keys: Keys = Keys(name)
        self.inbox: str = f"{identity}.asgi"
        self.on_message: Callable[[WorkerMessage], None] = ignored
        self.on_forgotten: Callable[[], None] = ignored
        self._loop = LastingLoop()
        self._link = Link(url, self._restored)
        self._inbox = Followed(self.keys.inbox(self.inbox), self._hear, trim_bytes=0)
        self._reader = Reader(
            partial(Link, url), [self._inbox], begin=self._begin, on_read=self._has_read, reject=reject
        )
        self._reject = reject
        self._published = partial(published, reject=reject)
        self._broadcasts = Broadcasts(self.inbox)
        self._has_inbox = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs, and connect."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)
                self._thread.start()
                self.submit(self._link.start()).result()
                self.submit(self._reader.link.start()).result()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._loop.create_future())
        except BaseException:  # our own fault
            logger.exception("the event loop has ended; this worker ends")
            logging.shutdown()
            os._exit(SOFTWARE_STATUS)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in a fresh context; from any other thread."""
        return fresh_context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def call(self, act: Callable[[], None]) -> None:
        """Call something on the loop: at once when there, else soon."""
        if threading.current_thread() is self._thread:
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    def reply(self, reply: Response | Want | Frames | Closed, answered: Answered) -> None:
        """Send a reply ahead of a commit; answered with its entry, or None when its interface is no more."""
        self._link.call(*reply_command(self.keys, reply), answered=answered, again=ALWAYS)

    def send_now(self, sent: Frames | Sent) -> None:
        """Send what is not to wait for a commit, on the loop or from a thread that sync_to_async runs."""
        self.call(lambda: self.publish(sent))

    def publish(self, sent: Frames | Sent) -> None:
        """Send something outside of a commit."""
        self._link.call(*self._broadcasts.command(self.keys, sent), answered=self._published, again=ALWAYS)

    async def commit(self, commit: Commit, arguments: Sequence[str | bytes | int]) -> object:
        """Commit, for as long as Redis is away; a repeated commit is refused there. Returns what commit.lua says.

        None: Redis refused it for good, and its event has ended otherwise.
        """
        refused_until = 0.0
        while True:
            try:
                return await self._link.ask("EVALSHA", COMMIT_SHA, *arguments, again=ALWAYS)
            except hiredis.ReplyError as error:
                words = str(error)
            if words.startswith("NOSCRIPT"):
                await self._link.ask("SCRIPT", "LOAD", COMMIT, again=ALWAYS)
                continue
            self._reject(REFUSED)
            refused_until = refused_until or monotonic() + REFUSED_SECONDS
            if monotonic() > refused_until:
                break
            await asyncio.sleep(AGAIN_SECONDS)
        entry = commit.entry
        logger.error("Redis rejected the commit of %s: %s", entry, words)
        *once, acknowledge = end_commands(self.keys, commit, words)
        for command in once:
            self._link.call(*command, answered=ignored, again=UNSENT | CUT)
        self._acknowledge(acknowledge)
        return None

    def _acknowledge(self, command: Command) -> None:
        def answered(reply: object) -> None:
            if isinstance(reply, hiredis.ReplyError):
                self._loop.call_later(AGAIN_SECONDS, self._acknowledge, command)

        self._link.call(*command, answered=answered, again=ALWAYS)

    async def dead_letter(self, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at; twice, perhaps, when Redis is away meanwhile."""
        with suppress(hiredis.ReplyError):
            await self._link.ask(*dead_letter_command(self.keys, event.channel, encode(event)[1], reason), again=ALWAYS)

    async def _restored(self) -> None:
        await self._link.ask("SCRIPT", "LOAD", COMMIT)

    async def _begin(self) -> None:
        self._created(await create_stream(self._reader.link, self._inbox.key, "worker"))

    def _created(self, is_new: bool) -> None:
        if is_new and self._has_inbox:
            logger.error("Redis has lost its data: the interfaces send again what the event loop of this worker runs")
            self._reader.rewind()
            self.on_forgotten()
        self._has_inbox = True

    def _hear(self, _entry_id: bytes, fields: list[bytes]) -> None:
        self.on_message(decode_worker_message(fields[0], fields[1]))

    def _has_read(self, is_empty: bool) -> None:
        """Perhaps there is no inbox any more. Only the worker creates it: messages to one that is gone are lost."""
        if is_empty:
            command = ("XGROUP", "CREATE", self._inbox.key, "worker", "0", "MKSTREAM")
            self._reader.link.call(*command, answered=lambda reply: self._created(reply == b"OK"))


class AsyncTurns:
    """Runs turns and jobs of `async def` consumers, many at a time. timeout_seconds: that one may take, 0 for ever."""

    def __init__(self, events: EventLoop, timeout_seconds: float = 0) -> None:
        self._events = events
        self._timeout_seconds = timeout_seconds or None
        self._in_hand: dict[tuple[bytes, bytes], tuple[float, Entry]] = {}
        self._room = threading.Semaphore(CAPACITY)
        self.errors: int = 0

    def holds(self, entry: Entry) -> bool:
        """Whether this event is in flight already, as after a lost connection, when pending events are read again."""
        return (entry.stream, entry.id) in self._in_hand

    def begin(self, entry: Entry, turn: RunningTurn | RunningJob) -> None:
        """Run a turn or a job and commit it; returns at once while there is room, else when one in flight is done."""
        self._events.start()
        self._room.acquire()
        self._in_hand[entry.stream, entry.id] = perf_counter(), entry
        turn.outcome.now = self._events.send_now
        self._events.submit(self._run(entry, turn))

    @property
    def running(self) -> int:
        """How many are in flight."""
        return len(self._in_hand)

    def began(self) -> list[tuple[float, Callable[[], str]]]:
        """Return of each in flight when it began, and what names it. From any thread."""
        return [(began, partial(name_of, entry.event)) for began, entry in list(self._in_hand.values())]

    def finish(self) -> None:
        """Wait until every turn in flight is committed. The supervisor's deadline bounds the wait."""
        for _ in range(CAPACITY):
            self._room.acquire()
        self._room.release(CAPACITY)

    async def _run(self, entry: Entry, turn: RunningTurn | RunningJob) -> None:
        try:
            done = await turn.run_async(self._timeout_seconds)
            if isinstance(turn, RunningJob) and turn.has_timed_out:
                reason = f"its handler took longer than {self._timeout_seconds:g} s"
                await self._events.dead_letter(entry.event, reason)
            with UserCode("%s: its reply cannot be encoded", entry) as ended:
                arguments = commit_arguments(self._events.keys, entry, done, turn.outcome.sends, turn.last_will())
            if ended.error is not None:  # there is always a commit
                done = turn.failed()
                arguments = commit_arguments(self._events.keys, entry, done, [])
            self.errors += is_error(done)
            await self._events.commit(Commit(entry, done), arguments)
        finally:
            self._in_hand.pop((entry.stream, entry.id), None)
            self._room.release()
