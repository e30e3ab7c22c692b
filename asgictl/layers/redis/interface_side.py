"""The channel layer on Redis Streams.

An interface adds events to the streams of channels; workers compete for them through the cursor `workers`; a
worker's commit (commit.lua) acknowledges the event and adds its reply to the reply stream of the interface in one
step. Broadcasts stand in one stream that every interface reads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import hiredis
import redis

from asgictl.errors import RedisError, WireError
from asgictl.layers.base import Answered, OnBroadcast, OnReply, Position, Reject, ignored, process_id
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.keys import Keys, interface_of, sockets_of
from asgictl.layers.redis.leases import (
    BEAT_SECONDS,
    REAP_CALLS,
    REAP_CONNECTIONS,
    beat_answer,
    beat_command,
    leave_command,
    move_due_command,
    moved,
    reap_connections_command,
    reap_over,
)
from asgictl.layers.redis.link import ALWAYS, CUT, UNSENT, Call, Link
from asgictl.layers.redis.own_channels import OwnChannels
from asgictl.layers.redis.process_records import record_command
from asgictl.layers.redis.reader import READ_COUNT, TRIM_BYTES, Followed, Reader, create_stream, position_of
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Broadcasts, Command, published
from asgictl.machine.ticks import until_tick
from asgictl.wire.messages import (
    Broadcast,
    Died,
    Event,
    Reply,
    Sent,
    WorkerMessage,
    decode_broadcast,
    decode_reply,
    encode,
)

logger = logging.getLogger("asgictl.layers")
BROADCAST_RETENTION_MILLISECONDS = 60_000
BROADCAST_RETENTION_BYTES = 64 << 20
MOST_REPEATS = 1000
_T = TypeVar("_T")
OnMovedReply = Callable[[Reply, Position | None, Position], None]
_TRIM = script("trim")
_REMOVE = """
if #redis.call('XPENDING', KEYS[1], 'workers', ARGV[1], ARGV[1], 1) > 0 then return 0 end
return redis.call('XDEL', KEYS[1], ARGV[1])
"""


class RedisGroupLayer:
    """Groups across the processes of an instance, for in-process servers. record: of this process, each second anew."""

    def __init__(
        self,
        url: str,
        name: str,
        on_broadcast: OnBroadcast,
        reject: Reject = ignored,
        record: Callable[[], bytes] = bytes,
    ) -> None:
        self._keys = Keys(name)
        self._id = process_id()
        self._record = record
        self._link = Link(url, self._register)
        self._on_broadcast = on_broadcast
        self._reject = reject
        self._published = partial(published, reject=reject)
        self._broadcasts = Broadcasts(self._id)
        self._repeats: deque[Position] = deque(maxlen=MOST_REPEATS)  # the newest broadcasts that came again
        self._broadcasts_followed = Followed(
            self._keys.broadcast, self._hear_broadcast, b"", trimmed=self._keys.trimmed
        )
        followed = [*self._followed(), self._broadcasts_followed]
        self._reader = Reader(partial(Link, url), followed, reject=reject)
        self._ticker: asyncio.Task[None] | None = None

    def _followed(self) -> list[Followed]:
        """Return what is read before broadcasts: a join is known before the first broadcast that comes after it."""
        return []

    async def _register(self) -> None:
        """Called whenever the link is up again."""

    def _hear_broadcast(self, entry_id: bytes, fields: list[bytes]) -> None:
        if self._broadcasts.is_new(fields):
            self._on_broadcast(decode_broadcast(fields[0], fields[1]), position_of(entry_id))
        else:
            self._repeats.append(position_of(entry_id))

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
        with suppress(OSError, hiredis.ReplyError):  # Redis is away: the record is forgotten by itself
            async with asyncio.timeout(BEAT_SECONDS):
                await self._link.ask(*record_command(self._keys, self._id, b""))
        await self._reader.link.stop()
        await self._link.stop()

    def publish(self, sent: Sent) -> None:
        self._link.call(*self._broadcasts.command(self._keys, sent), answered=self._published, again=ALWAYS)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(until_tick(BEAT_SECONDS))
            self._refresh()

    def _refresh(self) -> None:
        """Each second: forget broadcasts past their retention, renew the record."""
        keys, kept = (
            (self._keys.broadcast, self._keys.trimmed),
            (BROADCAST_RETENTION_MILLISECONDS, BROADCAST_RETENTION_BYTES),
        )
        self._link.call("EVAL", _TRIM, 2, *keys, *kept, answered=ignored)
        if record := self._record():
            self._link.call(*record_command(self._keys, self._id, record), answered=ignored)


class Identity:
    """What connections' ids begin with: it has a reply stream, last wills and a lease.

    is_fenced: others have taken it for dead, and see to what it has in Redis.
    """

    def __init__(self, id: str, replies: Followed) -> None:
        self.id = id
        self.replies = replies
        self.is_fenced = False


class RedisEventLayer(RedisGroupLayer):
    """An interface's side of the split. interface: its identity for requests; sockets_of() it is that of its sockets.

    manifest: the encoded manifest of the newest ready release, None until there was one; read again each second.
    on_forgotten: called when Redis has forgotten everything, and the reply stream stands anew.
    on_fenced: called with an identity that others have taken for dead, and its connections with it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        interface: str,
        on_reply: OnReply,
        on_broadcast: OnBroadcast,
        on_forgotten: Callable[[], None],
        on_fenced: Callable[[str], None],
        reject: Reject = ignored,
        record: Callable[[], bytes] = bytes,
    ) -> None:
        self._identities: dict[str, Identity] = {}
        self._own_ids = (interface, sockets_of(interface))
        for id, hear in zip(self._own_ids, (self._hear_reply, self._hear_sockets_reply), strict=True):
            self._identities[id] = Identity(id, Followed(Keys(name).replies(id), hear, trim_bytes=TRIM_BYTES))
        self._on_reply = on_reply
        super().__init__(url, name, on_broadcast, reject, record)
        self._on_forgotten = on_forgotten
        self._on_fenced = on_fenced
        self.epoch: bytes = b""
        self._renewing: asyncio.Task[None] | None = None
        self._own = OwnChannels(self._keys)
        self.manifest: bytes | None = None

    @property
    def identities(self) -> Sequence[str]:
        return tuple(id for id in self._own_ids if id in self._identities)

    @property
    def followed_identities(self) -> Sequence[str]:
        """Those of other processes."""
        return tuple(id for id in self._identities if id not in self._own_ids)

    def _followed(self) -> list[Followed]:
        return [identity.replies for identity in self._identities.values()]

    def _hear_reply(self, _entry_id: bytes, fields: list[bytes]) -> None:
        position = position_of(fields[3]) if len(fields) > 2 else None
        self._on_reply(decode_reply(fields[0], fields[1]), position)

    def _hear_sockets_reply(self, _entry_id: bytes, fields: list[bytes]) -> None:
        reply = decode_reply(fields[0], fields[1])
        if not isinstance(reply, Died):  # which each identity is told, and concerns sockets of ASGI
            self._on_reply(reply, position_of(fields[3]) if len(fields) > 2 else None)

    @property
    def broadcasts_read(self) -> Position:
        """The position up to which broadcasts were handed on, in this epoch."""
        return position_of(self._broadcasts_followed.position or b"0")

    def replies_read(self, identity: str) -> Position:
        """The position up to which an identity's replies were handed on, in this epoch."""
        return position_of(self._identities[identity].replies.position)

    def keep_replies(self, identity: str, *, keeps: bool) -> None:
        """Trim an identity's reply stream no more, as another process reads it too; or again."""
        if known := self._identities.get(identity):
            known.replies.trim_bytes = None if keeps else TRIM_BYTES

    async def follow(self, id: str, epoch: bytes, replies: Position, hear: OnMovedReply) -> None:
        """Read another process's reply stream too, from a position of that epoch, and renew its lease.

        Return once a read of it is on its way; or at once, when its lease was taken away. hear: is given each reply
        with its own position. Raises OSError, hiredis.ReplyError.
        """

        def heard(entry_id: bytes, fields: list[bytes]) -> None:
            position = position_of(fields[3]) if len(fields) > 2 else None
            hear(decode_reply(fields[0], fields[1]), position, position_of(entry_id))

        start = b"%d-%d" % replies if epoch == self.epoch else b"0"
        identity = Identity(id, Followed(self._keys.replies(id), heard, start))
        beat = beat_answer(await self._link.ask(*self._beat(identity, epoch)))
        if beat.fenced:
            self._on_fenced(id)
            return
        await create_stream(self._link, identity.replies.key, "interface")
        self._identities[id] = identity
        reading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader.follow(identity.replies, partial(_resolve, reading))
        await reading

    def unfollow(self, id: str) -> None:
        """Leave an identity to another process: neither read its replies nor renew its lease."""
        if identity := self._identities.pop(id, None):
            self._reader.unfollow(identity.replies)

    async def end_identity(self, id: str) -> None:
        """The last connection of an identity that was taken over is over: leave nothing of it behind."""
        self.unfollow(id)
        await self._link.ask("DEL", *self._keys.of_interface(id))
        await self._link.ask(*leave_command(self._keys, "interface", id))

    async def broadcasts_between(self, begin: Position, end: Position) -> list[tuple[Broadcast, Position]]:
        """Return the broadcasts behind a position, up to another."""
        found = await self._between(self._keys.broadcast, begin, end, decode_broadcast)
        return [each for each in found if each[1] not in self._repeats]

    async def replies_between(self, id: str, begin: Position, end: Position) -> list[tuple[Reply, Position]]:
        """Return an identity's replies behind a position, up to another."""
        return await self._between(self._keys.replies(id), begin, end, decode_reply)

    async def _between(
        self, key: str, begin: Position, end: Position, decode: Callable[[bytes, bytes], _T]
    ) -> list[tuple[_T, Position]]:
        found, at, last = list[tuple[_T, Position]](), f"({begin[0]}-{begin[1]}", f"{end[0]}-{end[1]}"
        while entries := await self._link.ask("XRANGE", key, at, last, "COUNT", READ_COUNT, again=ALWAYS):
            for entry_id, fields in entries:
                with suppress(WireError):  # the reader has counted it
                    found.append((decode(fields[0], fields[1]), position_of(entry_id)))
            at = "(" + entries[-1][0].decode()
        return found

    async def reap_others(self, id: str, held: Collection[str]) -> int:
        """Run the last wills of an identity's connections but for those that are held; call it again while it is not 0.

        The caller has seen the death of who held them. Redis has read all that that process had sent it before the
        second command of this.
        """
        _, turns, last_wills = self._keys.of_interface(id)
        known = {*await self._link.ask("HKEYS", turns), *await self._link.ask("HKEYS", last_wills)}
        others, left = sorted(known - {each.encode() for each in held}), 0
        for at in range(0, len(others), REAP_CONNECTIONS):
            some, touched = others[at : at + REAP_CONNECTIONS], list[bytes]()
            for _ in range(REAP_CALLS):
                answer = await self._link.ask(*reap_connections_command(self._keys, id, some, touched))
                if isinstance(answer, int):
                    left += answer
                    break
                touched += answer
            else:
                left += len(some)
        return left

    async def deregister(self) -> None:
        """Every connection has had its last turn: leave nothing behind."""
        if self._ticker:
            self._ticker.cancel()  # a beat from here on would come back from the dead
        with suppress(OSError, hiredis.ReplyError):  # Redis is away: our lease lapses
            for identity in list(self._identities.values()):
                if not identity.is_fenced:
                    await self._link.ask("DEL", *self._keys.of_interface(identity.id))
                    await self._link.ask(*leave_command(self._keys, "interface", identity.id))

    async def _register(self) -> None:
        """Called whenever the link is up again, and when Redis has forgotten: have a reply stream and a lease."""
        for identity in list(self._identities.values()):
            await create_stream(self._link, identity.replies.key, "interface")
        self.manifest = await self._link.ask("GET", self._keys.manifest) or self.manifest
        self._own.take(await self._link.ask(*self._own.command()))
        known = self.epoch  # which the first answer may change
        for identity in list(self._identities.values()):
            self._hear(identity, await self._link.ask(*self._beat(identity, known)))

    def _refresh(self) -> None:
        def take(reply: object) -> None:
            if isinstance(reply, bytes) and reply != self.manifest:
                self.manifest = reply

        super()._refresh()
        self._link.call("GET", self._keys.manifest, answered=take)
        self._link.call(*self._own.command(), answered=self._own.take)
        for identity in self._identities.values():
            self._link.call(*self._beat(identity, self.epoch), answered=partial(self._hear, identity))

    def _beat(self, identity: Identity, epoch: bytes) -> Command:
        return beat_command(self._keys, "interface", identity.id, epoch)

    def _hear(self, identity: Identity, reply: Any) -> None:
        if isinstance(reply, Exception):
            return  # the next beat tells more
        beat = beat_answer(reply)
        beat.tell(self._reject)
        if beat.fenced:
            identity.is_fenced = True
            self._on_fenced(identity.id)
        elif beat.epoch != self.epoch:
            known, self.epoch = self.epoch, beat.epoch
            if known:
                self._renewing = asyncio.get_running_loop().create_task(self._renew())
        for dead in beat.dead:
            logger.warning("the lease of %s has expired", dead)
            reap_over(self._link.call, self._keys, dead)
        if beat.background:
            self._link.call(*move_due_command(beat.background), answered=partial(moved, reject=self._reject))

    async def _renew(self) -> None:
        logger.error("Redis has lost its data: events in flight are sent again")
        try:
            await self._register()
        except (OSError, hiredis.ReplyError):
            self.epoch = b"?"  # so that the next beat comes here again
            return
        self._reader.rewind()
        self._on_forgotten()

    def append(self, channel: str, event: Event, answered: Answered, *, repeatable: bool, is_own: bool = False) -> Call:
        again = UNSENT | CUT if repeatable else UNSENT
        stream = self._keys.channel(channel)
        if is_own:
            return self._link.call("XADD", stream, "NOMKSTREAM", "*", *encode(event), answered=answered, again=again)
        return self._link.call("XADD", stream, "*", *encode(event), answered=answered, again=again)

    def homes(self, channel: str) -> tuple[str, ...]:
        return self._own.homes(channel)

    def find_homes(self, found: Callable[[], None]) -> None:
        def take(reply: object) -> None:
            self._own.take(reply)
            found()

        self._link.call(*self._own.command(), answered=take)

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        self._link.call("EVAL", _REMOVE, 1, self._keys.channel(channel), entry, answered=answered)

    def post(self, inbox: str, message: WorkerMessage, answered: Answered) -> None:
        command = ("XADD", self._keys.inbox(inbox), "NOMKSTREAM", "*", *encode(message))
        self._link.call(*command, answered=answered, again=ALWAYS)

    def forget(self, connection: str) -> None:
        for kept in (self._keys.turns(connection), self._keys.last_wills(connection)):
            self._link.call("HDEL", kept, connection, answered=ignored)

    def depth(self, channel: str, answered: Answered) -> None:
        self._link.call(*self._own.depth_command(channel), answered=answered)

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at."""
        command = dead_letter_command(self._keys, channel, encode(event)[1], reason)
        self._link.call(*command, answered=ignored, again=ALWAYS)

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Call gone() if the entry stands no more in its channel, and no reply to it can be on its way."""
        found: list[object] = []
        replies = self._identities[interface_of(event.connection)].replies

        def judge(last: Any) -> None:
            read = position_of(replies.position)
            known = not last or (isinstance(last, list) and position_of(last[0][0]) <= read)
            if found == [[]] and known:
                gone()

        self._link.call("XRANGE", self._keys.channel(channel), entry, entry, answered=found.append)
        self._link.call("XREVRANGE", replies.key, "+", "-", "COUNT", 1, answered=judge)


def _resolve(reading: "asyncio.Future[None]") -> None:
    if not reading.done():  # nobody waits any more
        reading.set_result(None)
