"""Dead letters: events that were given up, kept in a stream for somebody to look at."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import redis

from asgictl.errors import RedisError, WireError
from asgictl.layers.keys import Keys
from asgictl.messages import VERSION, Event, Receive, Request, decode_event, decode_scope

MOST = 10_000  # kept; the oldest go
Command = tuple[str | bytes | int, ...]


def dead_letter(keys: Keys, channel: str, event: bytes, reason: str) -> Command:
    """Return the command that keeps an encoded event."""
    fields = (str(VERSION), event, "channel", channel, "reason", reason)
    return ("XADD", keys.dead, "MAXLEN", "~", MOST, "*", *fields)


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
        if self.event is not None:
            scope = self.event.scope if isinstance(self.event, Request) else decode_scope(self.event.scope)
            path = f"{scope.method} {scope.path}".strip()
        return f"{self.id}  {when}  {self.channel}  {path}  {self.reason}"

    @property
    def text(self) -> str:
        """All that is known of it; frames and bodies as Python writes them."""
        lines, event = [self.line], self.event
        if event is not None:
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
        self._stream = Keys(name).dead

    def all(self, first: str = "-", last: str = "+") -> list[DeadLetter]:
        """Return those between two ids, the oldest first."""
        return [_letter(id, fields) for id, fields in self._ask(lambda redis: redis.xrange(self._stream, first, last))]

    def one(self, id: str) -> DeadLetter:
        """Raises RedisError when there is none of this id."""
        for letter in self.all(id, id):
            return letter
        raise RedisError(f"there is no dead letter {id}; see asgictl dead-letters list")

    def purge(self, ids: tuple[str, ...]) -> int:
        """Delete these, or all; returns how many there were."""
        ids = ids or tuple(letter.id for letter in self.all())
        return int(self._ask(lambda redis: redis.xdel(self._stream, *ids))) if ids else 0

    def _ask(self, question: Callable[[redis.Redis], Any]) -> Any:
        try:
            client = redis.Redis.from_url(self._url, socket_timeout=5)
        except ValueError:  # its text may quote a part of the password
            raise RedisError("--redis is not a URL of Redis, such as redis://host:6379") from None
        try:
            with client:
                return question(client)
        except redis.RedisError as error:
            raise RedisError(f"dead letters cannot be had: {error}") from None


def _letter(entry_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    (version, payload), *_ = fields.items()
    try:
        event = decode_event(version, payload)
        if not isinstance(event, Request):
            decode_scope(event.scope)
    except WireError:
        event = None
    return DeadLetter(entry_id.decode(), fields[b"channel"].decode(), fields[b"reason"].decode(), event)
