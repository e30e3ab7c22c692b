"""Statuses for tests, of what a test is not about."""

from typing import Any

from asgictl.control.status_schema import LastExit, Process, Status, Times

PARTS = {"p50_seconds": None, "p95_seconds": None, "p99_seconds": None}


def times(**figures: Any) -> Times:
    none: Any = {**PARTS, "total": 0, "per_second": 0.0, "wait": PARTS, "run": PARTS}
    made: Times = none | figures
    return made


def process(name: str, **fields: Any) -> Process:
    """One that is ready; fields: what is otherwise."""
    made: Any = {
        "role": name.partition("-")[0],
        "process": name,
        "state": "RUNNING",
        "pid": 4_000_000,
        "ready": True,
        "release": "",
        "uptime_seconds": 5.0,
        "rss_bytes": 40 << 20,
        "busy_share": None,
        "restarts": 0,
        "last_exit": None,
        "http": 0,
        "websockets": 0,
        "running": 0,
        "runs": [],
    }
    found: Process = made | fields
    return found


def end(reason: str, seconds_ago: float = 3.0, status: int | None = None) -> LastExit:
    return {"pid": 77, "seconds_ago": seconds_ago, "reason": reason, "signal": "", "status": status}


def status(*processes: Process, **fields: Any) -> Status:
    """Of a split instance with all that it is to have, unless processes say otherwise; fields: what is otherwise."""
    shown = processes or (process("interface-00"), process("worker-00"))
    ready = [{key: each[key] for key in ("role", "process", "pid", "release")} for each in shown if each["ready"]]
    made: Any = {
        "version": "0",
        "name": "shop",
        "mode": "split",
        "target": "m:a",
        "url": "http://h:1",
        "bind": "h:1",
        "server": "uvicorn",
        "workers": 1,
        "interfaces": 1,
        "threads": 3,
        "redis": "external",
        "redis_url": "",
        "options": {},
        "processes": list(shown),
        "ready": ready,
        "requests": times(),
        "turns": times(),
        "channels": {},
        "shed": {},
        "database_connections_at_most": 3,
        "warnings": [],
    }
    found: Status = made | fields
    return found
