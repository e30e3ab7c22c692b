"""Processes that say nothing: whom the controller ends, and what they ran.

A process that stands still (SIGSTOP) or whose code holds the GIL in C cannot be told anything, nor end itself. Its
events run elsewhere once its lease has lapsed, but it keeps its sockets, its port and its slot.
"""

import logging
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asgictl.errors import WireError
from asgictl.layers.redis.started import UNKNOWN, begun, started
from asgictl.wire.messages import Request, Turn, decode_event, decode_scope, printable

logger = logging.getLogger("asgictl.controller")
CHECK_SECONDS = 0.5  # between two looks at who is silent
LATE_SECONDS = 2.0  # by which a look that comes too late excuses everybody: it was the controller that stood still
LEAST_SUSPECT_SECONDS = 1.5  # of silence: more than one turn of a process's thread (controller_client.py)
REDIS_SECONDS = 1.0  # for which it is asked what a silent process ran
NAMED = 5  # events of one process, the last ones


class Silence:
    """Decides who is silent. seconds: after which a process is ended. now: by time.monotonic()."""

    def __init__(self, seconds: float, now: float) -> None:
        self._suspect_seconds = max(seconds / 2, LEAST_SUSPECT_SECONDS)
        self._excused_at = self._checked_at = now

    def suspects(self, heard: Mapping[int, float], now: float) -> dict[int, float]:
        """Return for how long those have been silent who may have to be ended; heard: when each was, by pid.

        What they run is to be found out now: once their leases have lapsed, Redis knows it no more.
        """
        if now - self._checked_at > CHECK_SECONDS + LATE_SECONDS:
            self._excused_at = now
        self._checked_at = now
        silent = {pid: now - max(at, self._excused_at) for pid, at in heard.items()}
        return {pid: seconds for pid, seconds in silent.items() if seconds >= self._suspect_seconds}


def end(process: psutil.Process) -> None:
    """Kill a process, and its group where it leads one: what supervisord starts does, a worker of gunicorn does not."""
    with suppress(psutil.Error, ProcessLookupError):
        if process.is_running() and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def what_ran(run_dir: Path, pid: int, redis_url: str | None) -> str:
    """Return what a process had started and not ended, to stand behind its end; "" when nothing is known."""
    found: list[str] = []
    with suppress(OSError):
        found += begun(run_dir / f"begun-{pid}")[-NAMED:]
    with suppress(OSError):
        found += _events(started(run_dir / f"started-{pid}"), redis_url)
    return f"; it ran {', '.join(map(printable, found))}" if found else ""


def _events(parts: list[list[str]], redis_url: str | None) -> list[str]:
    """Name the events that threads have started, as far as Redis still has them: what was committed is gone."""
    wanted = [entry for part in parts for entry in (part[-NAMED:] if part[:1] == [*UNKNOWN] else part[-1:])]
    places = [entry.split(" ") for entry in wanted if entry not in UNKNOWN]
    if not (places and redis_url):
        return []
    deadline = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    try:
        with redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), **deadline) as client:
            pipe = client.pipeline(transaction=False)
            for stream, entry in places:
                pipe.execute_command("XRANGE", stream, entry, entry)
            answers: Iterable[Any] = pipe.execute()
    except redis.RedisError:  # then their channels must do
        return [stream.partition("}:ch:")[2] for stream, _ in places]
    return [
        _named(stream.partition("}:ch:")[2], *next(iter(fields.items())))
        for (stream, _), entries in zip(places, answers, strict=True)
        for _, fields in entries
    ]


def _named(channel: str, field: bytes, value: bytes) -> str:
    """Return an event as a person knows it: GET /path, websocket.receive /path, background.name."""
    with suppress(WireError):
        event = decode_event(field, value)
        if isinstance(event, Request):
            return f"{event.scope.method} {event.scope.path}"
        if isinstance(event, Turn):
            return f"{channel} {decode_scope(event.scope).path}"
    return channel
