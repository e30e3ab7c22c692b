"""The worker's event loop: a thread of its own, with its own link to Redis, for everything that is async."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import hiredis

from asgictl.app.loops import LastingLoop
from asgictl.errors import WireError
from asgictl.layers.base import Answered, NotSent
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.interface_side import BLOCK_MILLISECONDS
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.link import Link
from asgictl.layers.redis.send_commands import Command, send_command
from asgictl.layers.redis.worker_side import COMMIT
from asgictl.wire.messages import (
    Broadcast,
    Closed,
    Event,
    Frames,
    Response,
    Sent,
    Want,
    WorkerMessage,
    decode_worker_message,
    encode,
)

logger = logging.getLogger("asgictl.worker")
T = TypeVar("T")
RETRY_SECONDS = 0.2
SOFTWARE_STATUS = 70  # sysexits.h, EX_SOFTWARE


class EventLoop:
    """Made for every worker; the thread starts when it is first needed.

    inbox: where letters to what runs here go. on_letter: hears them. on_forgotten: called when Redis has forgotten
    everything, and with it that anything runs here.
    """

    def __init__(self, url: str, name: str, identity: str) -> None:
        self.keys = Keys(name)
        self.inbox = f"{identity}.asgi"
        self.on_letter: Callable[[WorkerMessage], None] = lambda _letter: None
        self.on_forgotten: Callable[[], None] = lambda: None
        self._loop = LastingLoop()
        self._link = Link(url, self._restored)
        self._reader = Link(url, self._read_first)
        self._position = b"0"  # of the last letter
        self._has_inbox = False
        self._sha = b""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs, and connect."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)
                self._thread.start()
                self.submit(self._link.start()).result()
                self.submit(self._reader.start()).result()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._loop.create_future())
        except BaseException:  # our own fault
            logger.exception("the event loop has ended; this worker ends")
            logging.shutdown()
            os._exit(SOFTWARE_STATUS)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine; from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, act: Callable[[], None]) -> None:
        """Call something on the loop: at once when there, else soon."""
        if threading.current_thread() is self._thread:
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    def reply(self, reply: Response | Want | Frames | Closed, answered: Answered) -> None:
        """Send a reply ahead of a commit; answered with its entry, or None when its interface is no more."""
        self._link.call(
            "XADD", self.keys.replies(reply.connection), "NOMKSTREAM", "*", *encode(reply), answered=answered
        )

    def publish(self, sent: Frames | Sent) -> None:
        """Send something outside of a commit; again when the link was cut meanwhile, but for a broadcast on its way."""

        def answered(reply: object) -> None:
            if isinstance(reply, NotSent) or (isinstance(reply, ConnectionError) and not isinstance(sent, Broadcast)):
                self._loop.call_later(RETRY_SECONDS, self.publish, sent)
            elif isinstance(reply, hiredis.ReplyError):
                logger.error("what a handler sent was refused by Redis: %s", reply)

        if isinstance(sent, Frames):
            self.reply(sent, answered)
        else:
            self._link.call(*send_command(self.keys, sent), answered=answered)

    async def commit(self, *arguments: str | bytes | int) -> object:
        """Commit for as long as Redis is away; a repeated commit is refused there. Returns what commit.lua says."""
        return await self._insist(lambda: ("EVALSHA", self._sha, *arguments))

    async def dead_letter(self, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at; twice, perhaps, when Redis is away meanwhile."""
        command = dead_letter_command(self.keys, event.channel, encode(event)[1], reason)
        await self._insist(lambda: command)

    async def _insist(self, command: Callable[[], Command]) -> object:
        while True:
            try:
                return await self._link.ask(*command())
            except ConnectionError:
                await asyncio.sleep(RETRY_SECONDS)
            except hiredis.ReplyError as error:
                if str(error).startswith("NOSCRIPT"):
                    await self._load()
                else:
                    logger.error("Redis refused a commit: %s", error)
                    return None

    async def _load(self) -> None:
        with suppress(ConnectionError):  # the commit that comes next hears the same
            self._sha = await self._link.ask("SCRIPT", "LOAD", COMMIT)

    async def _restored(self) -> None:
        self._sha = await self._link.ask("SCRIPT", "LOAD", COMMIT)

    async def _read_first(self) -> None:
        try:
            self._created(await self._reader.ask(*self._creation()))
        except hiredis.ReplyError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._read()

    def _creation(self) -> tuple[str, ...]:
        """Only the worker creates its inbox, so that letters to one that is gone are known to be lost."""
        return ("XGROUP", "CREATE", self.keys.inbox(self.inbox), "worker", "0", "MKSTREAM")

    def _created(self, reply: object) -> None:
        if isinstance(reply, Exception):
            return  # it is there, or the link is lost
        if self._has_inbox:
            logger.error("Redis has forgotten everything: what runs on the event loop is lost to it")
            self.on_forgotten()
        self._has_inbox = True

    def _read(self) -> None:
        inbox = self.keys.inbox(self.inbox)
        self._reader.call("XREAD", "BLOCK", BLOCK_MILLISECONDS, "STREAMS", inbox, self._position, answered=self._take)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if self._reader.up:
                logger.error("Redis refused a read: %s", reply)
                self._loop.call_later(1, self._reader.drop)
            return  # a lost connection comes back through _read_first
        if not reply:  # perhaps because there is no inbox any more
            self._reader.call(*self._creation(), answered=self._created)
        for entry_id, fields in reply[0][1] if reply else ():
            self._position = entry_id
            try:
                self.on_letter(decode_worker_message(fields[0], fields[1]))
            except WireError as error:
                logger.error("letter %s passed over: %s", entry_id.decode(), error)
        if reply:
            self._reader.call("XTRIM", self.keys.inbox(self.inbox), "MINID", self._position, answered=_ignored)
        self._read()


def _ignored(_reply: object) -> None:
    """A trim that fails is made up for by the next."""
