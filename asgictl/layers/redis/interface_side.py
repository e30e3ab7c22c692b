"""The channel layer on Redis Streams.

An interface adds events to the streams of channels; workers compete for them through the cursor `workers`; a
worker's commit (commit.lua) acknowledges the event and adds its reply to the reply stream of the interface in one
step. Broadcasts stand in one stream that every interface reads.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import hiredis
import redis

from asgictl.errors import RedisError
from asgictl.layers.base import Answered, OnBroadcast, OnReply, Reject, ignored, process_id
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat_answer, beat_command, leave_command, move_due_command, moved, reap_over
from asgictl.layers.redis.link import ALWAYS, CUT, UNSENT, Call, Link
from asgictl.layers.redis.reader import TRIM_BYTES, Followed, Reader, create_stream, position_of
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Broadcasts, published
from asgictl.wire.messages import Event, Sent, WorkerMessage, decode_broadcast, decode_reply, encode

logger = logging.getLogger("asgictl.layers")
BROADCAST_RETENTION_MILLISECONDS = 60_000
BROADCAST_RETENTION_BYTES = 64 << 20
_TRIM = script("trim")
_REMOVE = """
if #redis.call('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1) > 0 then return 0 end
return redis.call('XDEL', KEYS[1], ARGV[1])
"""


class RedisGroupLayer:
    """Groups across the processes of an instance, for in-process servers."""

    def __init__(self, url: str, name: str, on_broadcast: OnBroadcast, reject: Reject = ignored) -> None:
        self._keys = Keys(name)
        self._link = Link(url, self._register)
        self._on_broadcast = on_broadcast
        self._reject = reject
        self._published = partial(published, reject=reject)
        self._broadcasts = Broadcasts(process_id())
        broadcasts = Followed(self._keys.broadcast, self._hear_broadcast, b"", trimmed=self._keys.trimmed)
        self._reader = Reader(partial(Link, url), [*self._followed(), broadcasts], reject=reject)
        self._ticker: asyncio.Task[None] | None = None

    def _followed(self) -> list[Followed]:
        """Return what is read before broadcasts: a join is known before the first broadcast that comes after it."""
        return []

    async def _register(self) -> None:
        """Called whenever the link is up again."""

    def _hear_broadcast(self, entry_id: bytes, fields: list[bytes]) -> None:
        if self._broadcasts.is_new(fields):
            self._on_broadcast(decode_broadcast(fields[0], fields[1]), position_of(entry_id))

    @property
    def silent_seconds(self) -> float:
        """How long ago Redis last answered, which it does each second."""
        return monotonic() - self._link.heard

    async def start(self) -> None:
        """Connect; raises RedisError."""
        try:
            await self._link.start()
            await self._reader.link.start()
        except (OSError, redis.RedisError, hiredis.ReplyError) as error:
            raise RedisError(f"Redis cannot be used: {error}") from error
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        if self._ticker:
            self._ticker.cancel()
        await self._reader.link.stop()
        await self._link.stop()

    def publish(self, sent: Sent) -> None:
        self._link.call(*self._broadcasts.command(self._keys, sent), answered=self._published, again=ALWAYS)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._refresh()

    def _refresh(self) -> None:
        """Each second: forget broadcasts past their retention."""
        keys, kept = (
            (self._keys.broadcast, self._keys.trimmed),
            (BROADCAST_RETENTION_MILLISECONDS, BROADCAST_RETENTION_BYTES),
        )
        self._link.call("EVAL", _TRIM, 2, *keys, *kept, answered=ignored)


class RedisEventLayer(RedisGroupLayer):
    """An interface's side of the split.

    manifest: the encoded manifest of the newest ready release, None until there was one; read again each second.
    on_forgotten: called when Redis has forgotten everything, and the reply stream stands anew.
    on_fenced: called when others have taken this interface for dead, and its connections with it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        interface: str,
        on_reply: OnReply,
        on_broadcast: OnBroadcast,
        on_forgotten: Callable[[], None],
        on_fenced: Callable[[], None],
        reject: Reject = ignored,
    ) -> None:
        self._id = interface
        replies = Keys(name).replies(interface)
        self._replies = Followed(replies, self._hear_reply, trim_bytes=TRIM_BYTES)
        self._on_reply = on_reply
        super().__init__(url, name, on_broadcast, reject)
        self._on_forgotten = on_forgotten
        self._on_fenced = on_fenced
        self._epoch = b""
        self._fenced = False
        self._renewing: asyncio.Task[None] | None = None
        self.manifest: bytes | None = None

    def _followed(self) -> list[Followed]:
        return [self._replies]

    def _hear_reply(self, _entry_id: bytes, fields: list[bytes]) -> None:
        position = position_of(fields[3]) if len(fields) > 2 else None
        self._on_reply(decode_reply(fields[0], fields[1]), position)

    async def goodbye(self) -> None:
        """Every connection has had its last turn: leave nothing behind."""
        if self._ticker:
            self._ticker.cancel()  # a beat from here on would come back from the dead
        if not self._fenced:
            with suppress(OSError, hiredis.ReplyError):  # Redis is away: our lease lapses
                await self._link.ask("DEL", *self._keys.of_interface(self._id))
                await self._link.ask(*leave_command(self._keys, "interface", self._id))

    async def _register(self) -> None:
        """Called whenever the link is up again, and when Redis has forgotten: have a reply stream and a lease."""
        await create_stream(self._link, self._replies.key, "interface")
        self.manifest = await self._link.ask("GET", self._keys.manifest) or self.manifest
        self._hear(await self._link.ask(*beat_command(self._keys, "interface", self._id, self._epoch)))

    def _refresh(self) -> None:
        def take(reply: object) -> None:
            if isinstance(reply, bytes) and reply != self.manifest:
                self.manifest = reply

        super()._refresh()
        self._link.call("GET", self._keys.manifest, answered=take)
        self._link.call(*beat_command(self._keys, "interface", self._id, self._epoch), answered=self._hear)

    def _hear(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            return  # the next beat tells more
        beat = beat_answer(reply)
        beat.tell(self._reject)
        if beat.fenced:
            self._fenced = True
            self._on_fenced()
        elif beat.epoch != self._epoch:
            known, self._epoch = self._epoch, beat.epoch
            if known:
                self._renewing = asyncio.get_running_loop().create_task(self._renew())
        for dead in beat.dead:
            logger.warning("%s is dead: its lease has lapsed", dead)
            reap_over(self._link.call, self._keys, dead)
        if beat.background:
            self._link.call(*move_due_command(beat.background), answered=partial(moved, reject=self._reject))

    async def _renew(self) -> None:
        logger.error("Redis has forgotten everything: what is open is sent again")
        try:
            await self._register()
        except (OSError, hiredis.ReplyError):
            self._epoch = b"?"  # so that the next beat comes here again
            return
        self._reader.rewind()
        self._on_forgotten()

    def append(self, channel: str, event: Event, answered: Answered, *, repeatable: bool) -> Call:
        again = UNSENT | CUT if repeatable else UNSENT
        return self._link.call("XADD", self._keys.channel(channel), "*", *encode(event), answered=answered, again=again)

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        self._link.call("EVAL", _REMOVE, 1, self._keys.channel(channel), entry, answered=answered)

    def post(self, inbox: str, letter: WorkerMessage, answered: Answered) -> None:
        command = ("XADD", self._keys.inbox(inbox), "NOMKSTREAM", "*", *encode(letter))
        self._link.call(*command, answered=answered, again=ALWAYS)

    def forget(self, connection: str) -> None:
        for kept in (self._keys.turns(connection), self._keys.farewells(connection)):
            self._link.call("HDEL", kept, connection, answered=ignored)

    def depth(self, channel: str, answered: Answered) -> None:
        self._link.call("XLEN", self._keys.channel(channel), answered=answered)

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at."""
        command = dead_letter_command(self._keys, channel, encode(event)[1], reason)
        self._link.call(*command, answered=ignored, again=ALWAYS)

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Call gone() if the entry stands no more in its channel, and no reply to it can be on its way."""
        found: list[object] = []

        def judge(last: Any) -> None:
            read = position_of(self._replies.position)
            known = not last or (isinstance(last, list) and position_of(last[0][0]) <= read)
            if found == [[]] and known:
                gone()

        self._link.call("XRANGE", self._keys.channel(channel), entry, entry, answered=found.append)
        self._link.call("XREVRANGE", self._replies.key, "+", "-", "COUNT", 1, answered=judge)
