"""Dead letters: events that were given up, kept in a stream for somebody to look at."""

import time
from typing import NamedTuple

from msgspec.structs import replace

from asgictl.errors import ConsumerError, RedisError, WireError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.send_commands import Command
from asgictl.layers.redis.sync_client import ask, check_channel
from asgictl.wire.messages import (
    VERSION,
    Event,
    Job,
    Receive,
    Request,
    decode_event,
    decode_scope,
    decode_state,
    encode,
)

MOST_DEAD_LETTERS = 10_000  # kept; the oldest go
_REQUEUE = """
if redis.call('XDEL', KEYS[1], ARGV[1]) == 1 then redis.call('XADD', KEYS[2], '*', ARGV[2], ARGV[3]) return 1 end
return 0
"""


def dead_letter_command(keys: Keys, channel: str, event: bytes, reason: str) -> Command:
    """Return the command that keeps an encoded event."""
    fields = (str(VERSION), event, "channel", channel, "reason", reason)
    return ("XADD", keys.dead, "MAXLEN", "~", MOST_DEAD_LETTERS, "*", *fields)


class DeadLetter(NamedTuple):
    """id: Redis milliseconds-sequence, when it was given up. event: None when no version of ours can read it."""

    id: str
    channel: str
    reason: str
    event: Event | None

    @property
    def line(self) -> str:
        """id, when, channel, path and reason."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(self.id.partition("-")[0]) / 1000))
        path = "?"
        if isinstance(self.event, Job):
            path = self.event.id
        elif self.event is not None:
            scope = self.event.scope if isinstance(self.event, Request) else decode_scope(self.event.scope)
            path = f"{scope.method} {scope.path}".strip()
        return f"{self.id}  {when}  {self.channel}  {path}  {self.reason}"

    @property
    def text(self) -> str:
        """All that is known of it; frames and bodies as Python writes them."""
        lines, event = [self.line], self.event
        if isinstance(event, Job):
            lines += [f"attempt {event.attempt}", f"content: {decode_state(event.content)!r}"]
        elif event is not None:
            lines.append(f"connection {event.connection}, attempt {event.attempt}")
        if isinstance(event, Receive):
            lines += [f"frame {event.first + index}: {frame!r}" for index, frame in enumerate(event.frames)]
        elif isinstance(event, Request):
            lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in event.scope.headers]
            lines.append(f"body: {event.body!r}" + (", and more that was not kept" if event.more else ""))
        return "\n".join(lines)


class DeadLetters:
    """Those of one instance. Every method raises RedisError when its Redis cannot be used."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._url = redis_url
        self._keys = Keys(name)
        self._stream = self._keys.dead

    def all(self, first: str = "-", last: str = "+") -> list[DeadLetter]:
        """Return those between two ids, the oldest first."""
        return [
            _letter(id, fields) for id, fields in ask(self._url, lambda redis: redis.xrange(self._stream, first, last))
        ]

    def one(self, id: str) -> DeadLetter:
        """Raises RedisError when there is none of this id."""
        for letter in self.all(id, id):
            return letter
        raise RedisError(f"there is no dead letter {id}; see asgictl dead-letters list")

    def purge(self, ids: tuple[str, ...]) -> int:
        """Delete these, or all; returns how many there were."""
        ids = ids or tuple(letter.id for letter in self.all())
        return int(ask(self._url, lambda redis: redis.xdel(self._stream, *ids))) if ids else 0

    def requeue(self, ids: tuple[str, ...]) -> int:
        """Send these jobs to their channels again, or all that are jobs, with attempts counted anew; returns how many.

        Raises ConsumerError for one that is no job, and UnknownChannel; those before it have been sent then.
        """
        letters = [self.one(id) for id in ids] or [letter for letter in self.all() if isinstance(letter.event, Job)]
        count = 0
        for letter in letters:
            if not isinstance(letter.event, Job):
                raise ConsumerError(
                    f"dead letter {letter.id} is of {letter.channel}: only background messages can be requeued; the"
                    " client that waited for this one has had its answer, or has gone"
                )
            check_channel(self._url, self._keys, letter.event.name)
            job = replace(letter.event, attempt=1, delay_milliseconds=0)
            keys = (self._stream, self._keys.channel(job.channel))
            command = ("EVAL", _REQUEUE, 2, *keys, letter.id, *encode(job))
            count += ask(self._url, lambda redis: redis.execute_command(*command))  # noqa: B023 - called now
        return count


def _letter(entry_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    (version, payload), *_ = fields.items()
    try:
        event = decode_event(version, payload)
        if isinstance(event, Job):
            decode_state(event.content)
        elif not isinstance(event, Request):
            decode_scope(event.scope)
    except WireError:
        event = None
    return DeadLetter(entry_id.decode(), fields[b"channel"].decode(), fields[b"reason"].decode(), event)
