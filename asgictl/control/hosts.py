"""How an instance is whose processes run on many hosts: the same status, of what each process says of itself in Redis.

What only a host's supervisord knows is not in it: restarts, last exits, and processes that have yet to reach Redis.
"""

import time
from contextlib import suppress
from typing import Any, NamedTuple, cast

import msgspec
import redis

from asgictl.control import channel_depths
from asgictl.control.needs import DRAINING, SILENT_SECONDS, differing_clocks, unread
from asgictl.control.registry import UNKNOWN, History
from asgictl.control.status import by_name, compose, process_of
from asgictl.control.status_schema import Process, Ready, Status
from asgictl.errors import NotRunning, WireError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.process_records import Records, read_records
from asgictl.layers.redis.sync_client import ask
from asgictl.telemetry.logs import masked
from asgictl.telemetry.process_record import ProcessRecord
from asgictl.wire.manifest import Router, event_channels

UNREADABLE = "{} process records cannot be decoded: those processes may run another version of asgictl"


class Known(NamedTuple):
    """A process. report: as a controller hears it. heard_seconds_ago: when Redis had its record."""

    record: ProcessRecord
    report: Ready
    heard_seconds_ago: float

    @property
    def state(self) -> str:
        """Return supervisord's word for it."""
        if self.record.last.draining:
            return DRAINING
        return "RUNNING" if self.record.state == "ready" else "STARTING"

    @property
    def serves(self) -> bool:
        """Whether it is ready, and neither drains nor is silent."""
        return self.state == "RUNNING" and self.heard_seconds_ago < SILENT_SECONDS


def status_of(redis_url: str, name: str) -> Status:
    """Return how the instance of this name is, on all hosts of a Redis; raises NotRunning, RedisError."""
    keys = Keys(name)

    def look(client: redis.Redis) -> tuple[Records, dict[str, channel_depths.Channel]]:
        return read_records(client, keys), channel_depths.look(client, keys)

    records, channels = ask(redis_url, look)
    if not records.records:
        raise NotRunning(f"no process of instance {name!r} is known to Redis at {masked(redis_url)}")
    return status_from(name, records, {channel: each._asdict() for channel, each in channels.items()})


def status_from(name: str, records: Records, channels: dict[str, dict[str, Any]]) -> Status:
    """Return the status that records and channels add up to."""
    found, history, now = list[Known](), History(), time.monotonic()
    for heard_seconds_ago, encoded in records.records:
        with suppress(msgspec.DecodeError, ValueError):
            record = msgspec.msgpack.decode(encoded, type=ProcessRecord)
            report = msgspec.convert(record.report, Ready)
            if heard_seconds_ago < SILENT_SECONDS:  # else what it did was not lately
                history.recall(len(found), now - heard_seconds_ago, record.seconds, record.first, record.last)
            found.append(Known(record, report, heard_seconds_ago))
    summary = history.summary()
    processes = [_process(each, summary["figures"].get(number)) for number, each in enumerate(found)]
    processes.sort(key=lambda each: (each["host"], by_name(each["process"]), each["pid"]))
    ready = [
        {**each.report, "host": each.record.host, "is_draining": not each.serves}
        for each in found
        if each.record.state == "ready"
    ]
    warnings = [UNREADABLE.format(unreadable)] if (unreadable := len(records.records) - len(found)) else []
    warnings += differing_clocks(
        {each.record.host: each.record.clock - (records.now - each.heard_seconds_ago) for each in found}
    )
    serving = [each.report for each in found if each.serves]
    warnings += unread(_channels(records.manifest).difference(*(each.get("channels", ()) for each in serving)))
    known = {**UNKNOWN, **summary, "channels": channels, "ready": ready}
    return compose(_configuration(name, serving), processes, known, warnings, 0)


def _process(known: Known, figures: dict[str, Any] | None) -> Process:
    record, report = known.record, cast(dict[str, Any], known.report)
    made = process_of(report["process"], known.state, report, figures, record.uptime_seconds, record.rss_bytes)
    made.update({"role": report["role"], "ready": record.state == "ready", "host": record.host})
    return {**made, "heard_seconds_ago": known.heard_seconds_ago}


def _configuration(name: str, serving: list[Ready]) -> dict[str, Any]:
    """Return what a description says, as far as it shows: how many there should be, beyond one, nobody knows."""
    roles = [each["role"] for each in serving]
    return {
        "name": name,
        "mode": "inprocess" if "server" in roles and "interface" not in roles else "split",
        **dict.fromkeys(("target", "url", "bind", "server", "redis_url"), ""),
        "workers": max(roles.count("worker"), roles.count("server"), 1),
        "autoscale": None,
        "interfaces": max(roles.count("interface"), 1),
        "threads": max((each.get("threads", 1) for each in serving), default=1),
        "redis": "external",
        "options": {},
    }


def _channels(manifest: bytes | None) -> set[str]:
    """Return the channels of the newest release that has workers."""
    with suppress(WireError):
        return event_channels(Router.decode(manifest or b"").manifest)
    return set()
