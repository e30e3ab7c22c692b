"""The admin endpoint: HTTP for probes, for Prometheus and for programs, on a 0600 Unix socket and, if asked, a port.

/livez (and /healthz, as it was called): the controller lives. /readyz: requests can be answered. /metrics: what
Prometheus scrapes. /status: what `asgictl status --json` prints. A busy worker is alive and ready all the same.
"""

import json
import logging
import re
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import psutil
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from asgictl.config import Bind
from asgictl.control.channel_depths import Channel
from asgictl.control.registry import History
from asgictl.errors import AddressError
from asgictl.interface.uvicorn_server import Server
from asgictl.telemetry.controller_client import ROLES
from asgictl.telemetry.metrics import BOUNDS, HISTOGRAMS
from asgictl.wire.asgi import Receive, Send

logger = logging.getLogger("asgictl.controller")
SOCKET = "admin.sock"
MOST_CONNECTIONS = 100  # past it 503
WHO = ("role", "process")
FIGURES: dict[str, Any] = {  # by field: the kind of family, its name, its help, and the label of a count by something
    "events": (Counter, "events", "Events that the application has handled; in-process requests and turns."),
    "errors": (Counter, "events_failed", "Events that ended with 5xx or 1011."),
    "busy_seconds": (Counter, "thread_busy_seconds", "Seconds that threads have run sync code, all threads together."),
    "cpu_seconds": (Counter, "cpu_seconds", "CPU seconds of the process, user and system."),
    "requests": (Counter, "requests", "Requests answered; 499 if the client left before the response.", "status"),
    "rejections": (Counter, "rejections", "Requests, sockets and messages rejected or dropped.", "reason"),
    "http": (Gauge, "open_requests", "Requests open; in a worker those of an ASGI application."),
    "websockets": (Gauge, "open_websockets", "WebSockets open; in a worker those of an ASGI application."),
    "adapted": (Counter, "asgi_server_scopes", "Requests and WebSockets that daphne or hypercorn passed on by ASGI."),
    "full": (Gauge, "open_files_exhausted", "1 while the open file limit leaves no room for a connection, else 0."),
    "running": (Gauge, "running_events", "Events that the application is handling."),
    "redis_silent_seconds": (
        Gauge,
        "redis_silent_seconds",
        "Seconds since Redis last answered; it answers each second.",
    ),
}
MOVES = {
    "moved": ("handed_over", "WebSockets handed over to another process."),
    "refused": ("handover_rejected", "WebSockets that another process rejected in a hand-over."),
    "overdue": ("handover_closed", "WebSockets closed because no process took them over before the deadline."),
}
CHANNELS = {
    "depth": ("depth", "Events in the channel, those in flight included."),
    "taken": ("in_flight", "Events that workers have taken and not acknowledged."),
    "oldest_seconds": ("oldest_event_age_seconds", "Age of the oldest event that no worker has taken; 0 if none."),
}
TIMES = {
    "seconds": ("duration_seconds", "Seconds from receipt until the {} began."),
    "wait_seconds": ("wait_seconds", "Seconds of them outside of the application."),
    "run_seconds": ("run_seconds", "Seconds of them in the application."),
}
ANSWERS = {"request": "response", "turn": "reply"}


LOCAL_HOST = r"(?i)(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


class Known(Protocol):
    """What the controller knows. channels: by name. who: what each ready process last said, by process id."""

    channels: dict[str, Channel]

    @property
    def history(self) -> History: ...

    def who(self) -> dict[int, dict[str, Any]]: ...

    def unready(self) -> str: ...

    def moves(self) -> dict[str, dict[str, int]]: ...

    def late(self) -> dict[str, str]: ...

    async def query_depths(self) -> None: ...

    async def status(self) -> dict[str, Any]: ...


class Admin(Collector):
    """An ASGI application, and what Prometheus collects. Each process counts for itself, so each has its own series.

    is_local: only this machine reaches it, by these names.
    """

    def __init__(self, controller: Known, *, is_local: bool) -> None:
        self._controller = controller
        self._is_local = is_local
        self._registry = CollectorRegistry()
        self._registry.register(self)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        status, kind, body = 200, "text/plain; charset=utf-8", b"ok\n"
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self._is_local and not all(re.fullmatch(LOCAL_HOST, host) for host in hosts):
            # a page elsewhere, whose name leads here now
            status, body = 403, b"Host: localhost, 127.0.0.1 or [::1]\n"
        elif scope["method"] not in {"GET", "HEAD"}:
            status, body = 405, b"GET and HEAD only\n"
        elif scope["path"] == "/readyz":
            if missing := self._controller.unready():
                status, body = 503, missing.encode() + b"\n"
            else:
                body += "".join(f"{line}\n" for line in self._controller.late().values()).encode()
        elif scope["path"] == "/metrics":
            await self._controller.query_depths()
            kind, body = CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)
        elif scope["path"] == "/status":
            found = await self._controller.status()
            status, kind, body = 200 if found else 503, "application/json", json.dumps(found).encode() + b"\n"
        elif scope["path"] not in {"/livez", "/healthz"}:
            status, body = 404, b"/livez, /readyz, /metrics, /status\n"
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def collect(self) -> Iterator[Metric]:
        """Return what processes have reported, as Prometheus names it."""
        who, latest = self._controller.who(), self._controller.history.latest()
        everybody = [(_labels(pid, who[pid]), latest[pid]) for pid in who if pid in latest]
        named = [(labels, figures) for labels, figures in everybody if labels[0] in ROLES]
        for field, (make, name, text, *key) in FIGURES.items():
            counts = [
                sample
                for labels, each in (everybody if field == "cpu_seconds" else named)
                for sample in _samples(labels, getattr(each, field))
            ]
            yield _family(make, name, text, (*WHO, *key), counts)
        for field in HISTOGRAMS:
            kind, _, rest = field.partition("_")
            filled = [(labels, counts) for labels, each in named if any(counts := getattr(each, field))]
            times = [(labels, _buckets(counts), counts[-1]) for labels, counts in filled]
            name, text = TIMES[rest]
            yield _family(Histogram, f"{kind}_{name}", text.format(ANSWERS[kind]), WHO, times)
        for field, (
            name,
            text,
        ) in MOVES.items():  # of processes that have ended, too: all of these have, a moment later
            moves = [([slot.partition("-")[0], slot], each[field]) for slot, each in self._controller.moves().items()]
            yield _family(Counter, f"websockets_{name}", text, WHO, moves)
        for field, (name, text) in CHANNELS.items():
            depths = [([each], getattr(channel, field)) for each, channel in self._controller.channels.items()]
            yield _family(Gauge, f"channel_{name}", text, ("channel",), depths)
        threads = [(_labels(pid, each), each["threads"]) for pid, each in who.items() if "threads" in each]
        yield _family(Gauge, "threads", "Threads for sync code, each with at most a database connection.", WHO, threads)
        memory = []
        for pid, report in who.items():
            with suppress(psutil.Error):  # it has just ended
                memory.append((_labels(pid, report), psutil.Process(pid).memory_info().rss))
        yield _family(Gauge, "resident_memory_bytes", "Resident memory of the process.", WHO, memory)


def _samples(labels: list[str], value: Any) -> list[tuple[list[str], float]]:
    return (
        [([*labels, str(key)], count) for key, count in value.items()] if isinstance(value, dict) else [(labels, value)]
    )


def _family(make: Any, name: str, text: str, labels: tuple[str, ...], samples: list[Any]) -> Metric:
    family: Metric = make(f"asgictl_{name}", text, labels=labels)
    for sample in samples:
        family.add_metric(*sample)  # type: ignore[attr-defined]
    return family


def _buckets(counts: list[float]) -> list[tuple[str, float]]:
    """Return a histogram as Prometheus has it, half as fine: every other bound, of which infinity is one."""
    sums = list(accumulate(counts[:-1]))
    return [(str(bound), below) for bound, below in zip((*BOUNDS, "+Inf"), sums, strict=True)][::2]


def _labels(pid: int, report: dict[str, Any]) -> list[str]:
    role, process = report["role"], report["process"]
    return [role, f"{process}/{pid}" if role == "server" else process]  # gunicorn's workers share a slot


def listeners(run_dir: Path, port: int | None) -> list[socket.socket]:
    """Return where a controller is asked. A port that is taken is logged: the socket is there all the same."""
    found: list[socket.socket] = []
    local = [Bind(f"127.0.0.1:{port}", "--admin-port")] if port else []
    for bind in (Bind(f"unix:{run_dir.absolute() / SOCKET}"), *local):
        try:
            found.append(bind.listen())
        except AddressError as error:
            logger.error("no admin endpoint: %s", error)
    return found


class Hosted(Server):
    """In an event loop that has its own ideas of what a signal means. is_local: as Admin has it."""

    def __init__(self, controller: Known, listeners: list[socket.socket], *, is_local: bool = True) -> None:
        options: dict[str, Any] = {"http": "httptools", "ws": "none", "lifespan": "off", "timeout_graceful_shutdown": 1}
        logs: dict[str, Any] = {"log_config": None, "access_log": False, "log_level": logging.WARNING}
        admin = Admin(controller, is_local=is_local)
        super().__init__(uvicorn.Config(admin, limit_concurrency=MOST_CONNECTIONS, **options, **logs))
        self._listeners = listeners

    async def host(self) -> None:
        """Serve until it is to end."""
        await self.serve(sockets=self._listeners)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
