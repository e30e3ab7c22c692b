"""What `asgictl status --json` and /status print: a contract. docs/status.schema.json is made of it.

Fields are only ever added. What a process has not reported yet is missing.
"""

import json
import sys
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta


class Quantiles(TypedDict):
    """Seconds; null when nothing was timed in the last 10 s."""

    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


class Times(Quantiles):
    """Of the last 10 s, but for totals. wait and run: parts of the whole, where they are known."""

    total: Annotated[int, Meta(description="Since the instance was started, processes that have ended included.")]
    per_second: float
    wait: Quantiles
    run: Annotated[Quantiles, Meta(description="What the application took.")]
    by_status: NotRequired[Annotated[dict[str, int], Meta(description="Of requests: totals by HTTP status.")]]


class Channel(TypedDict):
    """A channel of events, or a background channel."""

    depth: Annotated[int, Meta(description="Events in it.")]
    taken: Annotated[int, Meta(description="Of them, those that workers have.")]
    oldest_seconds: Annotated[float, Meta(description="For how long the oldest one has waited for a worker.")]
    readers: Annotated[int, Meta(description="Threads of workers that read it.")]


class LastExit(TypedDict):
    """How a process ended that was not told to."""

    pid: int
    seconds_ago: float
    reason: Annotated[
        str, Meta(description="For people, as `SIGSEGV` or `killed by the kernel: out of memory (SIGKILL)`.")
    ]
    signal: Annotated[str, Meta(description="As SIGKILL; empty unless a signal ended it.")]
    status: Annotated[int | None, Meta(description="Its exit status; null when a signal ended it.")]


class Run(TypedDict):
    """What a process runs now."""

    what: Annotated[str, Meta(description="As `GET /path`, `websocket.receive /path` or `background.name`.")]
    seconds: float


class Process(TypedDict):
    """A process that was started and is not stopped."""

    role: Annotated[str, Meta(description="interface, worker, server, controller or redis.")]
    process: Annotated[str, Meta(description="Its slot's name, as in logs; of gunicorn's workers with the pid.")]
    state: Annotated[str, Meta(description="supervisord's word; STOPPING while it drains.")]
    pid: int
    ready: bool
    release: str
    uptime_seconds: float | None
    rss_bytes: int | None
    busy_share: Annotated[float | None, Meta(description="Of its threads for sync code, in the last 10 s.")]
    restarts: Annotated[int, Meta(description="How often the processes in this slot ended that were not told to.")]
    last_exit: LastExit | None
    cpu_share: NotRequired[float | None]
    heard_seconds_ago: NotRequired[float]
    host: NotRequired[Annotated[str, Meta(description="Its machine's hostname, where many are asked: --redis.")]]
    events: NotRequired[int]
    errors: NotRequired[int]
    http: NotRequired[Annotated[int, Meta(description="Requests open now.")]]
    websockets: NotRequired[Annotated[int, Meta(description="WebSockets open now.")]]
    running: NotRequired[Annotated[int, Meta(description="Events that the application runs now.")]]
    runs: NotRequired[Annotated[list[Run], Meta(description="Of them the longest, at most three.")]]
    redis_silent_seconds: NotRequired[float]
    full: NotRequired[Annotated[int, Meta(description="1 while it has as many connections as open files allow.")]]
    moved: NotRequired[Annotated[int, Meta(description="WebSockets that another process took over.")]]
    refused: NotRequired[Annotated[int, Meta(description="WebSockets that another process rejected in a hand-over.")]]
    overdue: NotRequired[Annotated[int, Meta(description="WebSockets closed because no process took them over.")]]
    waiting: NotRequired[Annotated[int, Meta(description="WebSockets that are still to move.")]]
    until: NotRequired[Annotated[float, Meta(description="Epoch seconds by which they have to; 0 when none is.")]]


class Ready(TypedDict):
    """What a process that is ready, and does not drain, has reported of itself."""

    role: str
    process: str
    pid: int
    file_limit: NotRequired[int]
    threads: NotRequired[int]
    websocket: NotRequired[Annotated[str, Meta(description="consumers, ASGI or none.")]]
    release: NotRequired[str]
    channels: NotRequired[Annotated[list[str], Meta(description="Of a worker: what it serves.")]]
    host: NotRequired[str]
    keeps: NotRequired[Annotated[str, Meta(description="Of an interface: why its WebSockets cannot move, or empty.")]]


class Status(TypedDict):
    """How an instance of asgictl is. Requests and turns are null while the controller is away."""

    version: str
    name: str
    mode: Annotated[str, Meta(description="split or inprocess.")]
    target: str
    url: str
    bind: str
    server: str
    workers: int
    autoscale: NotRequired[Annotated[list[int] | None, Meta(description="The fewest and the most workers.")]]
    interfaces: int
    threads: int
    redis: Annotated[str, Meta(description="embedded, external or none.")]
    redis_url: Annotated[str, Meta(description="Of an embedded Redis; else empty.")]
    options: Annotated[dict[str, str], Meta(description="Of the roles, as environment variables; secrets are masked.")]
    processes: list[Process]
    ready: list[Ready]
    requests: Times | None
    turns: Times | None
    channels: dict[str, Channel]
    shed: Annotated[dict[str, int], Meta(description="Requests, sockets and messages rejected or dropped, by reason.")]
    database_connections_at_most: Annotated[
        int, Meta(description="One for each of --threads; what ASGI applications open is not known.")
    ]
    warnings: Annotated[list[str], Meta(description="What needs attention, and what to do; --check counts them.")]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of Status."""
    return msgspec.json.schema(Status)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
