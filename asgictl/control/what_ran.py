"""What a process has started and not ended, by the notes that outlive it (started.py), and what becomes of it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import redis

from asgictl.errors import WireError
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.started import UNKNOWN, begun, started
from asgictl.wire.messages import Job, Request, decode_event, may_repeat, printable
from asgictl.wire.naming import name_of

REDIS_SECONDS = 1.0  # for which it is asked for the events that a process has started
NAMED = 5  # events of one process, the last ones
DEATHS = 3  # that an event survives, but for a request (in_flight.py, take_back.lua)


class Ran(NamedTuple):
    """What ran, and what becomes of it should its process die; "" where its channel alone is known."""

    name: str
    fate: str


def what_ran(run_dir: Path, pid: int, redis_url: str | None) -> list[Ran]:
    """Return what a process runs, or had started when it died. To be called before that is reaped."""
    found: list[Ran] = []
    with suppress(OSError):
        found += [Ran(printable(name), "its connection ends") for name in begun(run_dir / f"begun-{pid}")[-NAMED:]]
    with suppress(OSError):
        found += _events(started(run_dir / f"started-{pid}"), redis_url)
    return found


def _events(parts: list[list[str]], redis_url: str | None) -> list[Ran]:
    """Name the events that threads have started, as far as Redis still has them: what was committed is gone."""
    wanted = [entry for part in parts for entry in (part[-NAMED:] if part[:1] == [*UNKNOWN] else part[-1:])]
    places = [entry.split(" ") for entry in wanted if entry not in UNKNOWN]
    channels = [stream.partition("}:ch:")[2] for stream, _ in places]
    if not (places and redis_url):
        return []
    try:
        with endpoint(redis_url).client(REDIS_SECONDS) as client:
            pipe = client.pipeline(transaction=False)
            for stream, entry in places:
                pipe.execute_command("XRANGE", stream, entry, entry)
            answers: Iterable[Any] = pipe.execute()
    except redis.RedisError:
        return [Ran(channel, "") for channel in channels]
    found = zip(channels, answers, strict=True)
    return [_ran(channel, fields) for channel, entries in found for _, fields in entries]


def _ran(channel: str, fields: dict[bytes, bytes]) -> Ran:
    (field, value), *_ = fields.items()
    try:
        event = decode_event(field, value)
    except WireError:
        return Ran(channel, "")
    deaths = 1 + (int(fields.get(b"retries", 0)) if isinstance(event, Job) else event.attempt - 1)
    if not may_repeat(event):
        fate = "its client is answered 502" if isinstance(event, Request) else "not run again: it may run only once"
    elif isinstance(event, Request):
        fate = "it runs once more" if deaths == 1 else "its client is answered 502"
    else:
        fate = "it runs again" if deaths < DEATHS else "dead-lettered"
    return Ran(name_of(event), fate)
