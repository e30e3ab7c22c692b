"""Channels of single workers, so that an ASGI application finds again what it keeps in its process.

Beside the stream of a channel each worker that runs ASGI has a stream of its own, of events that no other worker is to
have. Its beats alone create it (beat.lua), so an event for a worker that is no more is refused. A worker that stops
closes it: a stream whose last id is the greatest takes no more, and keeps what is pending until that is committed. Who
reaps the worker deletes it, and releases what it holds. A zset names all of them: 1 while they are open, then 0.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import redis

from asgictl.errors import WireError
from asgictl.layers.base import Entry
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.layers.redis.leases import release_command
from asgictl.layers.redis.reader import LAST_ID, READ_COUNT
from asgictl.layers.redis.send_commands import Command
from asgictl.wire.messages import decode_event

_DEPTH = """
local depth = 0
for _, stream in ipairs(KEYS) do
  depth = depth + redis.call('XLEN', stream)
end
return depth
"""


class OwnChannels:
    """The own channels of all workers, as the layer told of them last."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._told: object = None
        self._homes: dict[str, tuple[str, ...]] = {}
        self._streams: dict[str, list[str]] = {}

    def command(self) -> Command:
        """Return the command that asks for them."""
        return ("ZRANGE", self._keys.own, 0, -1, "WITHSCORES")

    def take(self, reply: object) -> None:
        """Take the answer to it; anything else changes nothing."""
        if not isinstance(reply, list) or reply == self._told:
            return
        self._told, self._homes, self._streams = reply, {}, {}
        prefix = self._keys.channel("")
        for member, score in zip(reply[::2], reply[1::2], strict=True):
            stream = member.decode("ascii", "replace")
            channel, _, home = stream.removeprefix(prefix).partition("@")
            if home and stream.startswith(prefix):
                self._streams.setdefault(channel, []).append(stream)
                if score == b"1":
                    self._homes[channel] = (*self._homes.get(channel, ()), home)

    def homes(self, channel: str) -> tuple[str, ...]:
        """Return the workers that take new events, beside this channel."""
        return self._homes.get(channel, ())

    def depth_command(self, channel: str) -> Command:
        """Ask how many events stand in a channel and in all own channels beside it."""
        own = self._streams.get(channel)
        stream = self._keys.channel(channel)
        return ("EVAL", _DEPTH, 1 + len(own), stream, *own) if own else ("XLEN", stream)


def close(client: redis.Redis, keys: Keys, channels: Sequence[str], consumer: str) -> None:
    """Let a worker's own channels take no more events, and release what nobody has taken. Raises redis-py's errors.

    consumer: by whose name it is taken. What has been taken already is given back by who has it.
    """
    for stream in map(keys.channel, channels):
        try:
            client.execute_command("XSETID", stream, LAST_ID)
            client.zadd(keys.own, {stream: 0}, xx=True)
            while read := _read(client, stream, consumer):
                if entries := _entries(stream.encode(), read):
                    client.execute_command(*release_command(keys, entries))
        except redis.ResponseError:
            if client.exists(stream):  # else it takes none, as Redis has forgotten it
                raise


def _read(client: redis.Redis, stream: str, consumer: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    answer: Any = client.xreadgroup(WORKERS, consumer, {stream: ">"}, READ_COUNT)
    return answer[0][1] if answer else []


def _entries(stream: bytes, read: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    """Return what can be decoded; the rest goes with its worker."""
    found = []
    for entry_id, fields in read:
        with suppress(WireError):
            found.append(Entry(stream, entry_id, decode_event(*next(iter(fields.items())))))
    return found
