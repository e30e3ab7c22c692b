"""What each subsystem is configured with: small frozen values, composed once by the command line.

Every default has its unit in its name.
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgictl.errors import AddressError

SERVERS = ("uvicorn", "daphne", "hypercorn")
AFFINITIES = ("connection", "client")
# Of a channel: one interface's events, encoded; a background channel's messages, in Redis's memory. As 10,000 events of
# 6.5 KiB, more than most carry; of the largest, 64 messages of 1 MiB, more than workers run in one second.
CHANNEL_BYTES = 64 << 20
CHANNEL_CAPACITY = 10_000  # messages of a background channel, those that are delayed included
MOST_DEAD_LETTERS, DEAD_LETTER_BYTES = 10_000, 64 << 20  # kept; the oldest go
RECORD_SECONDS, RECORDS_BYTES = 86_400, 64 << 20  # of what became of jobs, kept from when each is due; the oldest go
# WebSockets that an instance closes a second: a sixth of the handshakes that one interface takes (5,000 in 1.5 s).
DRAIN_RATE = 500.0
MOST_PORT = 65535
SILENT_SECONDS = 6.0  # without a sign of life, after which a process is ended: a lease of 5 s has lapsed by then


@dataclass(frozen=True, slots=True)
class Limits:
    """Capacities and deadlines of an interface. allowed_origins: globs; without, pages of the same host alone.

    inline_bytes: a body up to here travels with its event; a larger one is pulled, when the application reads it.
    header_*: of one request; unfinished_header_bytes: of all whose headers are not whole. fragments: of a message.
    first_byte_seconds: that a new connection may be silent; handshake_seconds: that a handshake may be unanswered.
    drain_rate: WebSockets that this process closes a second. shutdown_delay_seconds: that it serves on after SIGTERM.
    """

    turn_frames: int = 16
    inbox_frames: int = 64
    inbox_bytes: int = 1 << 20
    message_bytes: int = 1 << 20
    body_bytes: int = 1 << 30
    inline_bytes: int = 64 << 10
    outbox_bytes: int = 1 << 20
    channel_events: int = 10_000
    channel_bytes: int = CHANNEL_BYTES
    attempts: int = 3
    http_deadline_seconds: float = 60
    connect_deadline_seconds: float = 5
    inbox_deadline_seconds: float = 60
    drain_seconds: float = 30
    drain_rate: float = DRAIN_RATE
    shutdown_delay_seconds: float = 0
    allowed_origins: tuple[str, ...] = ()
    header_bytes: int = 64 << 10
    header_field_bytes: int = 16 << 10
    header_fields: int = 100
    header_seconds: float = 10
    unfinished_header_bytes: int = 16 << 20
    first_byte_seconds: float = 10
    handshake_seconds: float = 10
    fragments: int = 1024


# Those of Limits that `--limit NAME=VALUE` sets.
EDGE_LIMITS = (
    *("header_bytes", "header_field_bytes", "header_fields", "header_seconds", "unfinished_header_bytes"),
    *("first_byte_seconds", "handshake_seconds", "fragments"),
)


def edge_limits(given: Iterable[str]) -> dict[str, Any]:
    """Return fields of Limits from texts NAME=VALUE. Raises ValueError, which says what is wrong."""
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in EDGE_LIMITS:
            raise ValueError(f"there is no {name}: the names are {', '.join(EDGE_LIMITS)}")
        if not re.fullmatch(r"0*[1-9]\d{0,11}", value):
            raise ValueError(f"{name}: {value!r} is not a whole number of at least 1")
        found[name] = int(value)
    return found


def share(rate: float, environment: Mapping[str, str], processes: str) -> float:
    """Return the part of an instance's rate that each of its processes has; all of it for a process that runs alone.

    processes: the variable that says how many there are.
    """
    return rate / int(environment.get(processes, 1)) if "ASGICTL_RUN_DIR" in environment else rate


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on: `host:port`, `[IPv6]:port`, `unix:/path` or `fd://N` (a listening socket, inherited).

    option: that says it, for errors.
    """

    text: str
    option: str = "--bind"

    def __post_init__(self) -> None:
        match = re.fullmatch(r"unix:/.+|fd://\d+|(\[[\da-fA-F:.]+\]|[^][:/\s]+)(?::(\d{1,9}))?", self.text)
        if not match or self.text.isdecimal():
            mistake = "not an address; use 127.0.0.1:8000 or unix:/path/to.sock"
        elif match[1] and not match[2]:
            mistake = f"it has no port; use {match[1]}:8000"
        elif match[2] and not 0 < int(match[2]) <= MOST_PORT:
            mistake = f"a port is a number from 1 to {MOST_PORT}"
        else:
            return
        raise AddressError(f"{self.option} {self.text}: {mistake}")

    @property
    def url(self) -> str:
        """What a person opens."""
        return self.text if self.text.startswith(("unix:", "fd:")) else f"http://{self.text}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(re.fullmatch(r"unix:.*|(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+", self.text))

    @property
    def supervisor_url(self) -> str:
        """The same in supervisord's spelling, for [fcgi-program]."""
        path = self.text.removeprefix("unix:")
        return f"unix://{path}" if path != self.text else f"tcp://{self.text}"

    def listen(self) -> socket.socket:
        """Return a listening socket: a Unix socket is readable by its owner alone. Raises AddressError."""
        if self.text.startswith("fd://"):
            try:
                return socket.socket(fileno=int(self.text.removeprefix("fd://")))
            except OSError as error:
                raise AddressError(
                    f"{self.option} {self.text}: {error.strerror}; it must be an inherited socket"
                ) from None
        path = self.text.removeprefix("unix:")
        family = socket.AF_INET6 if self.text.startswith("[") else socket.AF_INET
        listener = socket.socket(socket.AF_UNIX if path != self.text else family, socket.SOCK_STREAM)
        try:
            if path != self.text:
                self._remove_stale(path)
                umask = os.umask(0o177)
                try:
                    listener.bind(path)
                finally:
                    os.umask(umask)
            else:
                host, _, port = self.text.rpartition(":")
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host.strip("[]"), int(port)))
            listener.listen(2048)
        except OSError as error:  # the kernel refuses
            listener.close()
            raise AddressError(
                f"cannot listen on {self.text}: {error.strerror or error}; choose another {self.option}"
            ) from error
        return listener

    @staticmethod
    def _remove_stale(path: str) -> None:
        """Remove a Unix socket on which nobody listens, as a killed server leaves it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:  # connect(2) says this of a plain file too
                if Path(path).is_socket():
                    Path(path).unlink()
            except OSError:
                return  # nothing is there, or nothing that is ours to remove: bind will tell

    def release(self) -> None:
        """Remove a Unix socket once nobody listens on it; what is no socket stays."""
        if self.text.startswith("unix:"):
            self._remove_stale(self.text.removeprefix("unix:"))

    def check(self) -> None:
        """Raise AddressError unless it can be listened on now; leaves nothing behind."""
        self.listen().close()
        self.release()


def run_directory(name: str) -> Path:
    """Where the instance of this name has its sockets, logs, embedded Redis's data; run_dir.RunDir proves it first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "asgictl" if runtime else Path(tempfile.gettempdir()) / f"asgictl-{os.getuid()}"
    return base / name


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """All that `asgictl start` decides; options: of the roles that it starts, by environment variable.

    background: whether TARGET has background channels. shutdown_delay: seconds, that it serves on before it stops.
    autoscale: the fewest and the most workers, as the load needs them; None for a fixed number.
    """

    name: str
    mode: str
    target: str
    bind: Bind
    workers: int
    threads: int
    interfaces: int = 1
    redis_url: str | None = None
    server: str = "uvicorn"
    admin_port: int | None = None
    start_seconds: float = 60
    shutdown_delay: float = 0
    release: str = ""
    options: dict[str, str] = field(default_factory=dict)
    background: bool = False
    autoscale: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """What a person opens."""
        has_tls = any("certfile=" in passed_on for passed_on in self.options.values())
        return self.bind.url.replace("http:", "https:") if has_tls else self.bind.url

    @property
    def uses_redis(self) -> bool:
        """In-process with one process keeps its groups in memory, but what is sent to background channels nowhere."""
        return self.mode == "split" or self.workers > 1 or self.redis_url is not None or self.background


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """One interface server. trusted: addresses of proxies whose X-Forwarded-For and -Proto count, "*" for any.

    uvicorn: more keywords of uvicorn.Config. affinity: of ASGI applications, one of AFFINITIES.
    """

    name: str
    redis_url: str
    bind: Bind
    limits: Limits = field(default_factory=Limits)
    trusted: str = "127.0.0.1"
    root_path: str = ""
    server: str = "uvicorn"
    uvicorn: dict[str, Any] = field(default_factory=dict)
    access_log: bool = False
    affinity: str = "connection"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker process. Of the channels, those that match `only` and not `exclude`, which are globs.

    timeout_seconds, max_events, max_memory_bytes: 0 for none. drain_seconds: of sockets of an ASGI application, and
    drain_rate: how many of them this process closes a second then. app_dir: as load_target has it.
    """

    name: str
    redis_url: str
    target: str
    threads: int = 1
    only: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    timeout_seconds: float = 60
    max_events: int = 0
    max_memory_bytes: int = 0
    drain_seconds: float = 600
    drain_rate: float = DRAIN_RATE
    release: str = ""
    app_dir: str = ""
