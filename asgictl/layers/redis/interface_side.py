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
from itertools import count
from operator import itemgetter
from time import monotonic
from typing import Any

import hiredis
import redis

from asgictl.errors import AsgictlError, RedisError, WireError
from asgictl.layers.base import Answered, NotSent, OnBroadcast, OnReply, Position
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat_answer, beat_command, leave_command, move_due_command, reap_over
from asgictl.layers.redis.link import Link
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import send_command
from asgictl.wire.messages import Broadcast, Event, Job, Sent, WorkerMessage, decode_broadcast, decode_reply, encode

logger = logging.getLogger("asgictl.layers")
READ_COUNT = 1000  # of entries a read; a bound on what one reply of Redis can weigh
BLOCK_MILLISECONDS = 1000
TRIM_BYTES = 64 << 10  # of replies that were applied, and may stand in Redis still
BROADCAST_RETENTION_MILLISECONDS = 60_000
BROADCAST_RETENTION_BYTES = 64 << 20
RESEND_SECONDS = 0.1
UNSENT_BYTES = 16 << 20  # of broadcasts that wait for Redis
SLOW_READ_SECONDS = 0.1  # less than any time in which as much comes as is kept
_TRIM = script("trim")
_REMOVE = """
if #redis.call('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1) > 0 then return 0 end
return redis.call('XDEL', KEYS[1], ARGV[1])
"""


def position_of(entry_id: bytes) -> Position:
    """Return b"1700000000000-3" as numbers that compare."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


class StreamReader:
    """The one long-lived blocking read of a process: hands on what is new in its streams, in order, and never cancels.

    Replies are applied before broadcasts, and broadcasts only when the replies were read to their end: so a join
    is always known before the first broadcast that comes after it.
    """

    def __init__(self, url: str, keys: Keys, on_broadcast: OnBroadcast) -> None:
        self._keys = keys
        self._on_broadcast = on_broadcast
        self._replies = ""
        self._on_reply: OnReply = _ignored
        self._positions: dict[str, bytes] = {}
        self._untrimmed_bytes = 0
        self._read_at = 0.0  # when the last read was sent, 0 for one that left something behind
        self._link = Link(url, self._begin)

    def follow(self, replies: str, on_reply: OnReply) -> None:
        """Read a reply stream too; to be called before start()."""
        self._replies, self._on_reply = replies, on_reply
        self._positions[replies] = b"0"

    async def start(self) -> None:
        """Begin to read; broadcasts from now on."""
        await self._link.start()

    async def stop(self) -> None:
        await self._link.stop()

    @property
    def replies_position(self) -> Position:
        """Up to where replies were applied."""
        return position_of(self._positions[self._replies])

    def rewind(self) -> None:
        """Read from the beginning: Redis has forgotten everything, its ids may begin anew."""
        self._positions = dict.fromkeys(self._positions, b"0")

    async def _begin(self) -> None:
        if self._keys.broadcast not in self._positions:
            last = await self._link.ask("XREVRANGE", self._keys.broadcast, "+", "-", "COUNT", 1)
            trimmed = await self._link.ask("GET", self._keys.trimmed)
            self._positions[self._keys.broadcast] = last[0][0] if last else trimmed or b"0"
        self._read_at = 0
        self._read()

    def _look(self, trimmed: object) -> None:
        """Tell of broadcasts that were forgotten before they were read."""
        if isinstance(trimmed, bytes) and position_of(trimmed) > position_of(self._positions[self._keys.broadcast]):
            logger.error("group messages were lost: this process was away for longer than they are kept")
            self._positions[self._keys.broadcast] = trimmed

    def _read(self) -> None:
        now = monotonic()
        if now - self._read_at > SLOW_READ_SECONDS:
            self._link.call("GET", self._keys.trimmed, answered=self._look)
        self._read_at = now
        self._link.call(
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MILLISECONDS, "STREAMS"),
            *self._positions,
            *self._positions.values(),
            answered=self._take,
        )

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if self._link.up:
                logger.error("Redis refused a read: %s", reply)
                asyncio.get_running_loop().call_later(1, self._link.drop)
            return  # a lost connection comes back through _begin
        streams = {key.decode(): entries for key, entries in reply or ()}
        replies = streams.get(self._replies, [])
        for entry_id, fields in replies:
            self._untrimmed_bytes += len(fields[1])
            try:
                position = position_of(fields[3]) if len(fields) > 2 else None
                self._on_reply(decode_reply(fields[0], fields[1]), position)
            except AsgictlError as error:  # what one reply does wrong must not stop those behind it
                logger.error("reply %s passed over: %s", entry_id.decode(), error)
        if replies:
            self._positions[self._replies] = last = replies[-1][0]
            if self._untrimmed_bytes > TRIM_BYTES:
                self._untrimmed_bytes = 0
                self._link.call("XTRIM", self._replies, "MINID", _after(last), answered=_ignored)
        if len(replies) < READ_COUNT:
            for entry_id, fields in streams.get(self._keys.broadcast, ()):
                self._positions[self._keys.broadcast] = entry_id
                try:
                    self._on_broadcast(decode_broadcast(fields[0], fields[1]), position_of(entry_id))
                except WireError as error:
                    logger.error("broadcast %s passed over: %s", entry_id.decode(), error)
        if len(replies) == READ_COUNT or len(streams.get(self._keys.broadcast, ())) == READ_COUNT:
            self._read_at = 0
        self._read()


def _after(entry_id: bytes) -> str:
    milliseconds, sequence = position_of(entry_id)
    return f"{milliseconds}-{sequence + 1}"


def _ignored(*_reply: object) -> None:
    """For commands whose failure shows elsewhere: a lost link, a Redis that refuses the next command too."""


class RedisGroupLayer:
    """Groups across the processes of an instance, for in-process servers."""

    def __init__(self, url: str, name: str, on_broadcast: OnBroadcast) -> None:
        self._keys = Keys(name)
        self._link = Link(url, self._register)
        self._reader = StreamReader(url, self._keys, on_broadcast)
        self._ticker: asyncio.Task[None] | None = None
        self._numbers = count()
        self._unsent: list[tuple[int, Sent]] = []  # whoever sends jobs sees to the channel's capacity
        self._unsent_bytes = 0  # of the broadcasts among them
        self._resending: asyncio.TimerHandle | None = None

    async def _register(self) -> None:
        """Called whenever the link is up again: send what a cut kept from being sent."""
        self._resend()

    def _resend(self) -> None:
        unsent, self._unsent, self._unsent_bytes = sorted(self._unsent, key=itemgetter(0)), [], 0
        for number, sent in unsent:
            self._send(number, sent)

    async def start(self) -> None:
        """Connect; raises RedisError."""
        try:
            await self._link.start()
            await self._reader.start()
        except (OSError, redis.RedisError, hiredis.ReplyError) as error:
            raise RedisError(f"Redis cannot be used: {error}") from error
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        if self._ticker:
            self._ticker.cancel()
        await self._reader.stop()
        await self._link.stop()
        if self._resending:
            self._resending.cancel()
        if self._unsent:
            logger.error("%d messages to groups or channels were lost: Redis is away", len(self._unsent))

    def publish(self, sent: Sent) -> None:
        number = next(self._numbers)
        if self._unsent:  # behind those before it
            self._keep(number, sent, "Redis is away")
        else:
            self._send(number, sent)

    def _send(self, number: int, sent: Sent) -> None:
        self._link.call(*send_command(self._keys, sent), answered=partial(self._published, number, sent))

    def _keep(self, number: int, sent: Sent, reason: object) -> None:
        """Keep what is to be sent again: once the link is back, or soon, for a Redis that is not itself keeps links."""
        if isinstance(sent, Broadcast):
            self._unsent_bytes += len(sent.frame)
            if self._unsent_bytes > UNSENT_BYTES:
                logger.error("a message to a group was lost: %s", reason)
                return
        self._unsent.append((number, sent))
        if self._resending is None:
            self._resending = asyncio.get_running_loop().call_later(RESEND_SECONDS, self._resend_if_up)

    def _resend_if_up(self) -> None:
        self._resending = None
        if self._link.up:
            self._resend()

    def _published(self, number: int, sent: Sent, reply: object) -> None:
        if isinstance(reply, NotSent) or (isinstance(reply, ConnectionError) and isinstance(sent, Job)):
            self._keep(number, sent, reply)
        elif isinstance(reply, Exception):
            logger.error("a message to a group or a channel was lost: %s", reply)

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
        self._link.call("EVAL", _TRIM, 2, *keys, *kept, answered=_ignored)


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
    ) -> None:
        super().__init__(url, name, on_broadcast)
        self._id = interface
        self._replies = self._keys.replies(interface)
        self._reader.follow(self._replies, on_reply)
        self._on_forgotten = on_forgotten
        self._on_fenced = on_fenced
        self._epoch = b""
        self._fenced = False
        self._renewing: asyncio.Task[None] | None = None
        self.manifest: bytes | None = None

    async def goodbye(self) -> None:
        """Every connection has had its last turn: leave nothing behind."""
        if self._ticker:
            self._ticker.cancel()  # a beat from here on would come back from the dead
        if not self._fenced:
            with suppress(OSError, hiredis.ReplyError):  # Redis is away: our lease lapses
                await self._link.ask("DEL", self._replies, self._keys.turns(self._id), self._keys.farewells(self._id))
                await self._link.ask(*leave_command(self._keys, "interface", self._id))

    async def _register(self) -> None:
        """Called whenever the link is up again, and when Redis has forgotten: have a reply stream and a lease."""
        try:  # commits add to this stream only while it exists; a group is the way to create an empty one
            await self._link.ask("XGROUP", "CREATE", self._replies, "interface", "0", "MKSTREAM")
        except hiredis.ReplyError as error:
            if "BUSYGROUP" not in str(error):
                raise
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
            self._link.call(*move_due_command(beat.background), answered=_ignored)

    async def _renew(self) -> None:
        logger.error("Redis has forgotten everything: what is open is sent again")
        try:
            await self._register()
        except (OSError, hiredis.ReplyError):
            self._epoch = b"?"  # so that the next beat comes here again
            return
        self._reader.rewind()
        self._on_forgotten()

    def append(self, channel: str, event: Event, answered: Answered) -> None:
        self._link.call("XADD", self._keys.channel(channel), "*", *encode(event), answered=answered)

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        self._link.call("EVAL", _REMOVE, 1, self._keys.channel(channel), entry, answered=answered)

    def post(self, inbox: str, letter: WorkerMessage, answered: Answered) -> None:
        self._link.call("XADD", self._keys.inbox(inbox), "NOMKSTREAM", "*", *encode(letter), answered=answered)

    def forget(self, connection: str) -> None:
        for kept in (self._keys.turns(connection), self._keys.farewells(connection)):
            self._link.call("HDEL", kept, connection, answered=_ignored)

    def depth(self, channel: str, answered: Answered) -> None:
        self._link.call("XLEN", self._keys.channel(channel), answered=answered)

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at."""
        self._link.call(*dead_letter_command(self._keys, channel, encode(event)[1], reason), answered=_ignored)

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Call gone() if the entry stands no more in its channel, and no reply to it can be on its way."""
        found: list[object] = []

        def judge(last: Any) -> None:
            known = not last or (isinstance(last, list) and position_of(last[0][0]) <= self._reader.replies_position)
            if found == [[]] and known:
                gone()

        self._link.call("XRANGE", self._keys.channel(channel), entry, entry, answered=found.append)
        self._link.call("XREVRANGE", self._replies, "+", "-", "COUNT", 1, answered=judge)
