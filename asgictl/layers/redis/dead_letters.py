"""Dead letters: events that were given up, kept in a stream for somebody to look at.

Kept without secrets: headers such as Cookie and Authorization are masked when a letter is written, and again when it
is shown, for an older release has kept them. What the scripts write are jobs, which have no headers.
"""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from asgictl.config import DEAD_LETTER_BYTES, MOST_DEAD_LETTERS
from asgictl.errors import ConsumerError, RedisError, WireError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Command
from asgictl.layers.redis.sync_client import ask, check_channel
from asgictl.wire.messages import (
    VERSION,
    Event,
    Headers,
    Job,
    Receive,
    Request,
    decode_event,
    decode_scope,
    encode,
    encode_scope,
    printable,
)
from asgictl.wire.state import decode_state

HEAD_BYTES = 64 << 10  # of a letter that is larger than all letters may be
PAGE = 16  # letters of a read: at most some 1 MiB each
MASK = b"***"
_SECRET = re.compile(rb"cookie|auth|token|secret|passw|credential|session|csrf|signature|jwt|key$")
DEAD_LETTER = f"local most, most_bytes, head_bytes = {MOST_DEAD_LETTERS}, {DEAD_LETTER_BYTES}, {HEAD_BYTES}\n" + script(
    "dead_letter"
)
_KEEP = DEAD_LETTER + "return dead_letter(KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[6])"
_REQUEUE = """
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', ARGV[2], ARGV[3])
return redis.call('XDEL', KEYS[1], ARGV[1])
"""


def dead_letter_command(keys: Keys, channel: str, event: bytes, reason: str) -> Command:
    """Return the command that keeps an encoded event; answered with the letter's id."""
    fields = (str(VERSION), _without_secrets(event), "channel", channel, "reason", reason)
    return ("EVAL", _KEEP, 1, keys.dead, *fields)


def _without_secrets(payload: bytes) -> bytes:
    """Return an encoded event with its secret headers masked. One that cannot be read stays: it is never shown."""
    try:
        event = decode_event(b"%d" % VERSION, payload)
        if isinstance(event, Job):
            return payload
        scope = event.scope if isinstance(event, Request) else decode_scope(event.scope)
    except WireError:
        return payload
    if (headers := masked(scope.headers)) == scope.headers:
        return payload
    scope = replace(scope, headers=headers)
    return encode(replace(event, scope=scope if isinstance(event, Request) else encode_scope(scope)))[1]


def masked(headers: Headers) -> Headers:
    """Return headers without the values of those that let somebody in, by their names."""
    return [(name, MASK if _SECRET.search(name.lower()) else value) for name, value in headers]


class DeadLetter(NamedTuple):
    """id: Redis milliseconds-sequence, when it was given up. event: None when no version of ours can read it."""

    id: str
    channel: str
    reason: str
    event: Event | None

    @property
    def line(self) -> str:
        """id, when, channel, path and reason."""
        path = "?"
        if isinstance(self.event, Job):
            path = self.event.id
        elif self.event is not None:
            scope = self.event.scope if isinstance(self.event, Request) else decode_scope(self.event.scope)
            path = f"{scope.method} {scope.path}".strip()
        return printable(f"{self.id}  {self._when}  {self.channel}  {path}  {self.reason}")

    @property
    def _when(self) -> str:
        try:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(self.id.partition("-")[0]) / 1000))
        except (ValueError, OverflowError, OSError):  # an id that somebody else has chosen
            return "?"

    @property
    def text(self) -> str:
        """All that is known of it, but for secret headers; frames and bodies as Python writes them."""
        lines, event = [self.line], self.event
        if isinstance(event, Job):
            lines += [f"attempt {event.attempt}", f"content: {decode_state(event.content)!r}"]
        elif event is not None:
            lines.append(f"connection {event.connection}, attempt {event.attempt}")
        if isinstance(event, Receive):
            lines += [f"frame {event.first + index}: {frame!r}" for index, frame in enumerate(event.frames)]
        elif isinstance(event, Request):
            headers = masked(event.scope.headers)
            lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers]
            lines.append(f"body: {event.body!r}" + (", and more that was not kept" if event.more else ""))
        return "\n".join(map(printable, lines))


class DeadLetters:
    """Those of one instance. Every method raises RedisError when its Redis cannot be used."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._url = redis_url
        self._keys = Keys(name)
        self._stream = self._keys.dead

    def all(self) -> Iterator[DeadLetter]:
        """Yield those that are there now, the oldest first, read as they are asked for."""
        last, first = self._newest(), "-"
        while last and (page := self._read(first, last, PAGE)):
            yield from page
            if page[-1].id == last:
                return
            first = "(" + page[-1].id

    def _newest(self) -> str:
        """Return the newest letter's id, "" when there is none: what is given up from now on comes behind it."""
        found = ask(self._url, lambda redis: redis.xrevrange(self._stream, count=1))
        return found[0][0].decode() if found else ""

    def _read(self, first: str, last: str, count: int) -> list[DeadLetter]:
        return [
            _letter(id, fields)
            for id, fields in ask(self._url, lambda redis: redis.xrange(self._stream, first, last, count))
        ]

    def one(self, id: str) -> DeadLetter:
        """Raises RedisError when there is none of this id."""
        for letter in self._read(id, id, 1):
            return letter
        raise RedisError(f"there is no dead letter {id}; see asgictl dead-letters list")

    def purge(self, ids: tuple[str, ...]) -> int:
        """Delete these, or all that are there now; returns how many there were."""
        if ids:
            return int(ask(self._url, lambda redis: redis.xdel(self._stream, *ids)))
        if not (newest := self._newest()):
            return 0
        before = ask(self._url, lambda redis: redis.xtrim(self._stream, minid=newest, approximate=False))
        return int(before) + int(ask(self._url, lambda redis: redis.xdel(self._stream, newest)))

    def requeue(self, ids: tuple[str, ...]) -> int:
        """Send these jobs to their channels again, or all that are jobs, with attempts counted anew; returns how many.

        Raises RedisError for one that is not there, ConsumerError for one that is no job, and UnknownChannel; those
        before it have been sent then.
        """
        letters = map(self.one, ids) if ids else (each for each in self.all() if isinstance(each.event, Job))
        return sum(map(self._requeue, letters))

    def _requeue(self, letter: DeadLetter) -> int:
        if not isinstance(letter.event, Job):
            raise ConsumerError(
                f"dead letter {letter.id} is of {letter.channel}: only background messages can be requeued; the"
                " client that waited for this one has had its answer, or has gone"
            )
        check_channel(self._url, self._keys, letter.event.name)
        job = replace(letter.event, attempt=1, delay_milliseconds=0)
        command = ("EVAL", _REQUEUE, 2, self._stream, self._keys.channel(job.channel), letter.id, *encode(job))
        return int(ask(self._url, lambda redis: redis.execute_command(*command)))


def _letter(entry_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    """Read an entry of the stream, whoever wrote it."""
    (version, payload), *_ = fields.items()
    event: Event | None = None
    try:
        event = decode_event(version, payload)
        if isinstance(event, Job):
            decode_state(event.content)
        elif not isinstance(event, Request):
            decode_scope(event.scope)
    except WireError:
        event = None
    channel, reason = (fields.get(name, b"?").decode(errors="replace") for name in (b"channel", b"reason"))
    return DeadLetter(entry_id.decode(), channel, reason, event)
