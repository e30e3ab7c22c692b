"""The one loop that reads streams: replies, broadcasts, inboxes, and what a Channels channel layer carries.

A reader has one blocking read, which it never cancels. What it hands on stays in order, over cuts and failovers too: it
reads on from its position. A new master may have lost the newest entries, and give the next ones smaller ids by a
slower clock. So a stream of ours keeps the last entry that was handed on: if another stands in its place, or none, all
is read again, as its owner knows what comes twice. Of other streams the end counts where that lies before the position.
What cannot be read spoils itself alone: it is passed over.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

import hiredis

from asgictl.errors import WireError
from asgictl.layers.base import Position, Reject, ignored
from asgictl.layers.redis.link import Link

logger = logging.getLogger("asgictl.layers")
READ_COUNT = 1000  # of entries a read; a bound on what one reply of Redis can weigh
BLOCK_MILLISECONDS = 1000
TRIM_BYTES = 64 << 10  # that were handed on of a stream of ours, and may stand in Redis still
SLOW_READ_SECONDS = 0.1  # less than any time in which as much comes as is kept
READ_AGAIN_SECONDS = 1.0  # until a read that Redis has refused is tried again
TELL_SECONDS = 10.0  # between two lines about entries of one stream
LAST_ID = b"18446744073709551615-18446744073709551615"  # after which a stream takes no other
ID = re.compile(rb"[0-9]{1,20}(-[0-9]{1,20})?")
PASSED_OVER = "Redis entries skipped: malformed"
_RENEW = """
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
return redis.call('XSETID', KEYS[1], '0-1')
"""
L = TypeVar("L", bound=Link)
Hear = Callable[[bytes, list[bytes]], None]  # an entry's id, and its fields and values in turn


def position_of(entry_id: bytes) -> Position:
    """Return b"1700000000000-3" as numbers that compare."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def position_in(value: object) -> Position:
    """Return what a key holds where a position is to stand; of anything else, the least."""
    if not isinstance(value, bytes) or not ID.fullmatch(value):
        return 0, 0
    position = position_of(value)
    return position if max(position) <= position_of(LAST_ID)[0] else (0, 0)


def after(entry_id: bytes) -> str:
    """Return the smallest id behind this one."""
    milliseconds, sequence = position_of(entry_id)
    return f"{milliseconds}-{sequence + 1}"


class PassedOver:
    """Counts entries that cannot be read, and tells of those of one stream and one kind at most each TELL_SECONDS."""

    def __init__(self, reject: Reject) -> None:
        self._reject = reject
        self._told_at: dict[tuple[str, type], float] = {}

    def add(self, key: str, entry_id: bytes, error: Exception | None) -> None:
        """Count one. error: why."""
        self._reject(PASSED_OVER)
        now, kind = monotonic(), (key, type(error))
        if now - self._told_at.get(kind, -TELL_SECONDS) >= TELL_SECONDS:
            self._told_at[kind] = now
            known = isinstance(error, WireError)
            logger.error(
                "stream %s: skipped entry %s: %r", key, entry_id.decode(), error, exc_info=None if known else error
            )


class Followed:
    """A stream that is followed. hear: is given each entry; what it raises passes that entry over.

    position, last: id and fields of the last entry that was handed on; position b"" begins with what comes next.
    trim_bytes: of a stream that nobody else reads, how much may be left in it once it was handed on; None for any
    other. trimmed: the key that holds the newest entry that somebody has trimmed, so that a gap is noticed.
    """

    def __init__(
        self, key: str, hear: Hear, position: bytes = b"0", *, trim_bytes: int | None = None, trimmed: str = ""
    ) -> None:
        self.key = key
        self.hear = hear
        self.position = position
        self.last: list[bytes] = []
        self.trim_bytes = trim_bytes
        self.trimmed = trimmed
        self.untrimmed_bytes = 0


class Reader(Generic[L]):
    """Follows streams; of a later one nothing is handed on before the earlier ones were read to their ends.

    begin: awaited after each connect, before the first read. on_read: called after each read, at least once a second,
    with whether it found nothing. reject: told of each entry that was passed over, in a fixed word.
    """

    def __init__(
        self,
        link: Callable[[Callable[[], Awaitable[None]]], L],
        followed: Sequence[Followed],
        *,
        begin: Callable[[], Awaitable[None]] | None = None,
        on_read: Callable[[bool], None] = lambda _is_empty: None,
        reject: Reject = ignored,
    ) -> None:
        self.link: L = link(self._begin)
        self.followed: list[Followed] = list(followed)
        self._joining: list[Callable[[], None]] = []  # to be called with the next read
        self._on_begin = begin
        self._on_read = on_read
        self._passed_over = PassedOver(reject)
        self._read_at = 0.0  # when the last read was sent, 0 for one that left something behind

    def follow(self, each: Followed, reading: Callable[[], None]) -> None:
        """Follow one more stream, before all others; reading() is called once a read of it is on its way."""
        self.followed.insert(0, each)
        self._joining.append(reading)

    def unfollow(self, each: Followed) -> None:
        """Hand on nothing more of a stream."""
        self.followed.remove(each)

    def rewind(self) -> None:
        """Read from the beginning: Redis has forgotten everything, its ids may begin anew."""
        for each in self.followed:
            each.position = b"0"

    async def _begin(self) -> None:
        if self._on_begin:
            await self._on_begin()
        for each in self.followed:
            if each.trim_bytes is None:
                end = await self._end_of(each)
                if not each.position or position_of(end) < position_of(each.position):
                    each.position = end
            elif await self._entries(each, each.position, each.position) != [[each.position, each.last]]:
                each.position = b"0"
        self._read_at = 0
        self._read()

    async def _end_of(self, each: Followed) -> bytes:
        """Return the newest entry that a stream has had, as far as Redis knows."""
        last = await self._entries(each, "+", "-")
        end: bytes = last[0][0] if last else b"0-0"
        trimmed: bytes = b"0"
        if each.trimmed:
            with suppress(hiredis.ReplyError):  # it is no string
                trimmed = await self.link.ask("GET", each.trimmed) or trimmed
        return trimmed if position_in(trimmed) > position_of(end) else end

    async def _entries(self, each: Followed, newest: str | bytes, oldest: str | bytes) -> list[Any]:
        """Return the newest entry between two ids, in a list, as far as there is one."""
        try:
            found: list[Any] = await self.link.ask("XREVRANGE", each.key, newest, oldest, "COUNT", 1)
        except hiredis.ReplyError as error:
            await _remove_other(self.link, each.key, error)
            return []
        return found

    def _read(self) -> None:
        now = monotonic()
        if now - self._read_at > SLOW_READ_SECONDS:
            for each in self.followed:
                if each.trimmed:
                    self.link.call("GET", each.trimmed, answered=partial(self._look, each))
        self._read_at = now
        self.link.call(
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MILLISECONDS, "STREAMS"),
            *(each.key for each in self.followed),
            *(each.position for each in self.followed),
            answered=self._take,
        )
        joining, self._joining = self._joining, []
        for reading in joining:
            reading()

    def _look(self, each: Followed, trimmed: Any) -> None:
        """Tell of entries that were forgotten before they were read."""
        if position_in(trimmed) > position_of(each.position):
            logger.error("group messages were lost: this process did not read them for longer than Redis keeps them")
            each.position = trimmed

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if self.link.up:
                logger.error("Redis rejected a read: %s", reply)
                asyncio.get_running_loop().call_later(READ_AGAIN_SECONDS, self.link.drop)
            return  # a lost connection comes back through _begin
        found = {key.decode(): entries for key, entries in reply or ()}
        for each in tuple(self.followed):
            entries = found.get(each.key, ())
            for entry_id, fields in entries:
                each.position, each.last = entry_id, fields
                try:
                    each.hear(entry_id, fields)
                except Exception as error:  # noqa: BLE001 - what one entry does wrong must not stop those behind it
                    self._passed_over.add(each.key, entry_id, error)
            if entries and each.trim_bytes is not None:
                self._trim(each, entries)
            if each.trim_bytes is not None and each.position == LAST_ID:
                logger.error("stream %s has reached the last possible id and is recreated", each.key)
                self.link.call(*renew_command(each.key), answered=ignored)
                each.position = b"0"
            if len(entries) == READ_COUNT:
                self._read_at = 0
                break
        try:
            self._on_read(not found)
        finally:
            self._read()

    def _trim(self, each: Followed, entries: list[Any]) -> None:
        each.untrimmed_bytes += sum(len(fields[1]) for _, fields in entries)
        if each.untrimmed_bytes > (each.trim_bytes or 0):
            each.untrimmed_bytes = 0
            self.link.call("XTRIM", each.key, "MINID", each.position, answered=ignored)


def renew_command(key: str) -> tuple[str | int, ...]:
    """Return the command that empties a stream of ours whose ids are used up, and has them begin anew."""
    return ("EVAL", _RENEW, 1, key)


async def create_stream(link: Link, key: str, group: str) -> bool:
    """Create an empty stream of ours unless it is there; returns whether it was made. Others add to it only then."""
    while True:
        try:  # a group is the way to create an empty one
            await link.ask("XGROUP", "CREATE", key, group, "0", "MKSTREAM")
            return True
        except hiredis.ReplyError as error:
            if str(error).startswith("BUSYGROUP"):
                return False
            await _remove_other(link, key, error)


async def _remove_other(link: Link, key: str, error: hiredis.ReplyError) -> None:
    """Remove what stands where a stream is to be; raises the error unless it says so."""
    if not str(error).startswith("WRONGTYPE"):
        raise error
    logger.error("%s is not a stream and is removed", key)
    await link.ask("DEL", key)
