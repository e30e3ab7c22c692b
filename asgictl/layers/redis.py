"""The channel layer on Redis Streams.

An interface adds events to the streams of channels; workers compete for them through the cursor `workers`; a
worker's commit (commit.lua) acknowledges the event and adds its reply to the reply stream of the interface in one
step. Broadcasts stand in one stream that every interface reads.
"""

import asyncio
import logging
import re
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import hiredis
import redis

from asgictl.errors import RedisError, WireError
from asgictl.layers.base import Answered, OnBroadcast, OnReply, Position
from asgictl.layers.keys import WORKERS, Keys
from asgictl.layers.link import BACKOFF_SECONDS, Link, pack
from asgictl.manifest import Manifest, encode_manifest
from asgictl.messages import (
    Broadcast,
    Disconnect,
    Done,
    Event,
    Response,
    decode_broadcast,
    decode_event,
    decode_reply,
    encode,
)

logger = logging.getLogger("asgictl.layers")
COMMIT = Path(__file__).with_name("commit.lua").read_text()
MINIMUM_VERSION = (6, 2)
READ_COUNT = 1000  # of entries a read; a bound on what one reply of Redis can weigh
BLOCK_MILLISECONDS = 1000
BROADCAST_RETENTION_MILLISECONDS = 60_000


def position_of(entry_id: bytes) -> Position:
    """Return b"1700000000000-3" as numbers that compare."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def check_redis(url: str) -> None:
    """Raise RedisError, saying what to do, unless the Redis at `url` can carry events."""
    shown = re.sub(r"^\w+://(.*@)?|\?.*", "", url)  # never a password
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    except ValueError:  # its text may quote a part of the password
        raise RedisError(
            "--redis is not a URL of Redis, such as redis://host:6379; percent-encode what a password has of / ? # @ :"
        ) from None
    try:
        info = client.info()
    except redis.AuthenticationError:
        raise RedisError(
            f"Redis at {shown} wants a password, or another one; use --redis redis://:PASSWORD@host:port"
        ) from None
    except redis.RedisError as error:
        raise RedisError(f"Redis at {shown} cannot be used: {error}; is it running, is --redis right?") from None
    finally:
        client.close()
    assert isinstance(info, dict)  # noqa: S101 - redis-py types sync and async replies alike
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < MINIMUM_VERSION:
        raise RedisError(f"Redis at {shown} is {info['redis_version']}; 6.2 is the oldest that works")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisError(f"Redis at {shown} may evict events: set its maxmemory-policy to noeviction, not {policy}")


class StreamReader:
    """The one long-lived blocking read of a process: hands on what is new in its streams, in order, and never cancels.

    Replies are applied before broadcasts, and broadcasts only when the replies were read to their end: so a join
    is always known before the first broadcast that comes after it.
    """

    def __init__(self, url: str, keys: Keys, replies: str | None, on_reply: OnReply, on_broadcast: OnBroadcast) -> None:
        self._keys = keys
        self._replies = replies
        self._on_reply = on_reply
        self._on_broadcast = on_broadcast
        self._positions: dict[str, bytes] = {replies: b"0"} if replies else {}
        self._link = Link(url, self._begin)
        self.broadcast_position: Position = (0, 0)

    async def start(self) -> None:
        """Begin to read; broadcasts from now on."""
        await self._link.start()

    async def stop(self) -> None:
        await self._link.stop()

    async def _begin(self) -> None:
        if self._keys.broadcast not in self._positions:
            last = await self._link.ask("XREVRANGE", self._keys.broadcast, "+", "-", "COUNT", 1)
            self._positions[self._keys.broadcast] = last[0][0] if last else b"0"
        self._read()

    def _read(self) -> None:
        self._link.call(
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MILLISECONDS, "STREAMS"),
            *self._positions,
            *self._positions.values(),
            answered=self._take,
        )

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if isinstance(reply, hiredis.ReplyError):
                logger.error("Redis refused a read: %s", reply)
                asyncio.get_running_loop().call_later(1, self._read)
            return  # a lost connection comes back through _begin
        streams = {key.decode(): entries for key, entries in reply or ()}
        replies = streams.get(self._replies or "", [])
        for entry_id, fields in replies:
            try:
                position = position_of(fields[3]) if len(fields) > 2 else None
                self._on_reply(decode_reply(fields[0], fields[1]), position)
            except WireError as error:
                logger.error("reply %s passed over: %s", entry_id.decode(), error)
        if replies and self._replies:
            self._positions[self._replies] = last = replies[-1][0]
            self._link.call("XTRIM", self._replies, "MINID", _after(last), answered=_ignored)
        if len(replies) < READ_COUNT:
            for entry_id, fields in streams.get(self._keys.broadcast, ()):
                self._positions[self._keys.broadcast] = entry_id
                self.broadcast_position = position_of(entry_id)
                try:
                    self._on_broadcast(decode_broadcast(fields[0], fields[1]), self.broadcast_position)
                except WireError as error:
                    logger.error("broadcast %s passed over: %s", entry_id.decode(), error)
        self._read()


def _after(entry_id: bytes) -> str:
    milliseconds, sequence = position_of(entry_id)
    return f"{milliseconds}-{sequence + 1}"


def _ignored(reply: object) -> None:
    """For commands whose failure shows elsewhere: a lost link, a Redis that refuses the next command too."""


class RedisGroupLayer:
    """Groups across the processes of an instance, for in-process servers."""

    def __init__(self, url: str, name: str, on_broadcast: OnBroadcast) -> None:
        self._keys = Keys(name)
        self._link = Link(url)
        self._reader = StreamReader(url, self._keys, None, lambda _reply, _position: None, on_broadcast)
        self._ticker: asyncio.Task[None] | None = None

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

    def publish(self, broadcast: Broadcast) -> None:
        self._link.call("XADD", self._keys.broadcast, "*", *encode(broadcast), answered=_published)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._refresh()

    def _refresh(self) -> None:
        """Each second: forget broadcasts past their retention, as told by Redis's own clock, the ids."""
        oldest = self._reader.broadcast_position[0] - BROADCAST_RETENTION_MILLISECONDS
        if oldest > 0:
            self._link.call("XTRIM", self._keys.broadcast, "MINID", "~", oldest, answered=_ignored)


def _published(reply: object) -> None:
    if isinstance(reply, Exception):
        logger.error("a group message was lost: %s", reply)


class RedisEventLayer(RedisGroupLayer):
    """An interface's side of the split.

    manifest: the encoded manifest of the newest ready release, None until there was one; read again each second.
    """

    def __init__(self, url: str, name: str, interface: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> None:
        super().__init__(url, name, on_broadcast)
        self._replies = self._keys.replies(interface)
        self._turns = self._keys.turns(interface)
        self._link = Link(url, self._create)
        self._reader = StreamReader(url, self._keys, self._replies, on_reply, on_broadcast)
        self.manifest: bytes | None = None

    async def stop(self) -> None:
        """Close; no worker can reply to this interface any more."""
        if self._link.up:
            await self._link.ask("DEL", self._replies, self._turns)
        await super().stop()

    async def _create(self) -> None:
        try:  # commits add to this stream only while it exists; a group is the way to create an empty one
            await self._link.ask("XGROUP", "CREATE", self._replies, "interface", "0", "MKSTREAM")
        except hiredis.ReplyError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self.manifest = await self._link.ask("GET", self._keys.manifest)

    def _refresh(self) -> None:
        def take(reply: object) -> None:
            if isinstance(reply, bytes):
                self.manifest = reply

        super()._refresh()
        self._link.call("GET", self._keys.manifest, answered=take)

    def append(self, event: Event, answered: Answered) -> None:
        self._link.call("XADD", self._keys.channel(event.channel), "*", *encode(event), answered=answered)


class Entry(NamedTuple):
    """An event in a worker's hands."""

    stream: bytes
    id: bytes
    event: Event


def commit_arguments(
    keys: Keys, entry: Entry, reply: Response | Done, broadcasts: list[Broadcast]
) -> tuple[str | bytes | int, ...]:
    """Return what follows the script in EVALSHA: the number of keys, the keys and the arguments of commit.lua."""
    connection = reply.connection
    turn, joins = (reply.number, bool(reply.joins)) if isinstance(reply, Done) else ("", False)
    return (
        *(4, entry.stream, keys.replies(connection), keys.turns(connection), keys.broadcast),
        *(entry.id, connection, turn, int(isinstance(entry.event, Disconnect)), int(joins), *encode(reply)),
        *(encode(broadcast)[1] for broadcast in broadcasts),
    )


class RedisWorkerLayer:
    """A worker's side of the split: blocking, for one thread.

    Commits are buffered and go out with the next read, or by flush(). A commit that was not answered when the
    connection broke is sent again: Redis refuses it if it had succeeded.
    """

    def __init__(self, url: str, name: str, consumer: str, channels: list[str]) -> None:
        self.keys = Keys(name)
        self.client_id = 0  # of the connection that reads, for CLIENT UNBLOCK
        self.refused = 0  # commits that came too late
        self._url = url
        self._consumer = consumer
        self._streams = [self.keys.channel(channel) for channel in channels]
        self._connection: redis.connection.AbstractConnection | None = None
        self._sha = b""
        self._output: list[bytes] = []
        self._unanswered: list[bytes] = []  # commits on their way
        self._recover = False  # read this consumer's own pending entries before new ones

    def connect(self) -> None:
        """Connect and create the cursors; raises redis-py's errors."""
        options: dict[str, Any] = {**redis.connection.parse_url(self._url), "protocol": 2}
        connection: redis.connection.AbstractConnection = options.pop("connection_class", redis.Connection)(**options)
        connection.connect()
        self._connection = connection
        self._sha = self._ask("SCRIPT", "LOAD", COMMIT)
        self.client_id = self._ask("CLIENT", "ID")
        for stream in self._streams:
            try:
                self._ask("XGROUP", "CREATE", stream, WORKERS, "0", "MKSTREAM")
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def publish_manifest(self, manifest: Manifest) -> None:
        """Tell interfaces what this release serves."""
        self._ask("SET", self.keys.manifest, encode_manifest(manifest))

    def close(self) -> None:
        """Send what was buffered, leave the cursors, and close."""
        try:
            self.flush()
            self._drain()
            for stream in self._streams:
                self._ask("XGROUP", "DELCONSUMER", stream, WORKERS, self._consumer)
        except redis.RedisError as error:
            logger.warning("left Redis without a goodbye: %s", error)
        if self._connection:
            self._connection.disconnect()

    def read(self, count: int) -> list[Entry]:
        """Send buffered commits, then wait up to a second for at most `count` events of each channel.

        Never raises for a lost Redis: it reconnects, backing off, and returns what it finds.
        """
        options = ("COUNT", READ_COUNT) if self._recover else ("COUNT", count, "BLOCK", BLOCK_MILLISECONDS)
        begin = "0" if self._recover else ">"
        self._recover = False
        try:
            self._send(
                *("XREADGROUP", "GROUP", WORKERS, self._consumer, *options, "STREAMS"),
                *(self._streams + [begin] * len(self._streams)),
            )
            self._drain()
            reply = self._receive()
        except (redis.RedisError, OSError) as error:  # away, failing over, or flushed: connecting creates the cursors
            self._reconnect(error)
            return []
        return [entry for stream, entries in reply or () for entry in self._entries(stream, entries)]

    def _entries(self, stream: bytes, entries: list[Any]) -> list[Entry]:
        found = []
        for entry_id, fields in entries:
            try:
                if fields is None:
                    raise WireError("the entry was deleted")
                found.append(Entry(stream, entry_id, decode_event(fields[0], fields[1])))
            except WireError as error:  # nobody can run it: it must not come back for ever
                logger.error("event %s passed over: %s", entry_id.decode(), error)
                self.pass_over(stream, entry_id)
        return found

    def pass_over(self, stream: bytes, entry_id: bytes) -> None:
        """Acknowledge an event that cannot be run."""
        self._buffer("XACK", stream, WORKERS, entry_id)

    def commit(self, entry: Entry, reply: Response | Done, broadcasts: list[Broadcast]) -> None:
        """Buffer the commit of an event."""
        self._buffer("EVALSHA", self._sha, *commit_arguments(self.keys, entry, reply, broadcasts))

    def send_part(self, response: Response) -> None:
        """Send a part of a response that is not its last, now."""
        self._buffer("XADD", self.keys.replies(response.connection), "NOMKSTREAM", "*", *encode(response))
        self.flush()

    def flush(self) -> None:
        """Send what was buffered; a lost connection shows at the next read."""
        try:
            self._send()
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            logger.warning("the connection to Redis was lost while sending")

    def _buffer(self, *command: str | bytes | int) -> None:
        self._output.append(pack(command))

    def _send(self, *command: str | bytes | int) -> None:
        output, self._output = self._output, []
        self._unanswered += output
        if command:
            output.append(pack(command))
        if self._connection is None or not self._connection.is_connected:  # redis-py would connect anew, unseen
            raise redis.ConnectionError("not connected")
        if output:
            self._connection.send_packed_command([b"".join(output)], check_health=False)

    def _receive(self) -> Any:
        assert self._connection is not None  # noqa: S101 - _send raised otherwise
        return self._connection.read_response(disable_decoding=True)

    def _drain(self) -> None:
        """Read the answers of what was sent before; a refusal is counted, an error logged."""
        while self._unanswered:
            try:
                answer = self._receive()
            except redis.exceptions.NoScriptError as error:  # connecting loads it; then this commit is sent again
                raise redis.ConnectionError("Redis has forgotten the commit script") from error
            except redis.ResponseError as error:
                logger.error("Redis refused a commit: %s", error)
                answer = 1
            self._unanswered.pop(0)
            if isinstance(answer, int) and answer <= 0:
                self.refused += 1
                logger.info("a commit came too late and was refused (%d)", answer)

    def _ask(self, *command: str | bytes | int) -> Any:
        self._send(*command)
        self._drain()
        return self._receive()

    def _reconnect(self, error: Exception) -> None:
        logger.warning("Redis is away: %s", error)
        began, attempt = monotonic(), 0
        unanswered, self._unanswered = self._unanswered + self._output, []
        self._output = []
        while True:
            if self._connection:
                self._connection.disconnect()
            sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            attempt += 1
            try:
                self.connect()
            except (redis.RedisError, OSError) as again:
                if attempt % 60 == 0:
                    logger.warning("Redis is still away after %.0f s: %s", monotonic() - began, again)
                self._unanswered, self._output = [], []
                continue
            break
        self._output = unanswered
        self._recover = True
        logger.warning("Redis is back")
