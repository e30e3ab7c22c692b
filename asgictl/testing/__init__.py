"""Runs consumers and background jobs in a test: no processes, no Redis, no threads and no clock.

Clients, the forwarder, the memory layer and the run of each event are the product's own. Only what drives them is the
test's: each call runs every event that is due, one after another, and returns when nothing is left to run. Sync
handlers run in the test's thread, so they see its database transaction; `async def` ones run on one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from asgiref.sync import sync_to_async

from asgictl.app import outside
from asgictl.app.application import Application, manifest_of
from asgictl.app.boundary import fresh_context
from asgictl.app.message import RetryLater
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.app.target import load_target
from asgictl.config import Bind, InterfaceConfig, Limits
from asgictl.errors import RedisError, TargetError
from asgictl.interface.edge import SocketHandler
from asgictl.interface.forwarder import Forwarder
from asgictl.layers.base import Entry, ignored
from asgictl.layers.memory import Memory, MemoryEventLayer
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.telemetry.access_log import UNLOGGED
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.manifest import check_known, event_channels
from asgictl.wire.messages import Accept, Close, Frame, Job, Scope, Sent
from asgictl.wire.records import JobRecord

__all__ = ["AsyncInstance", "DeadLetter", "Instance", "Refused", "Socket"]

NEVER_SECONDS = 1e9  # a debugger may hold a test for any time
QUIET_ROUNDS = 8  # turns of the event loop without an event, after which none is to follow: the longest chain has 3
MOST_EVENTS = 10_000  # that one call runs; more follow each other without end
GOING_AWAY = 1001  # RFC 6455, section 7.4.1
LIMITS = Limits(
    connect_deadline_seconds=NEVER_SECONDS, inbox_deadline_seconds=NEVER_SECONDS, http_deadline_seconds=NEVER_SECONDS
)
LOST = "the layer is lost: call restore_layer()"
R_co = TypeVar("R_co", covariant=True)
Running = tuple[Entry, RunningTurn | RunningJob]


class Refused(Exception):
    """The handshake was refused. status: of the HTTP response, 403 for a close() in `connect`, 500 for an exception."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the handshake was answered {status}")
        self.status = status


class DeadLetter(NamedTuple):
    """An event that was given up, as `asgictl dead-letters list` has it."""

    channel: str
    reason: str


class Socket(Generic[R_co]):
    """A client's WebSocket; Instance.connect() makes it.

    frames: those that have come and were not received, the oldest first. subprotocol, headers: of the handshake's
    answer. close_code, close_reason: how the application ended the connection; None and "" while it has not.
    """

    def __init__(self, client: "_Client", run: Callable[[], R_co]) -> None:
        self.frames: list[str | bytes] = client.frames
        self._client = client
        self._run = run

    def send(self, frame: str | bytes) -> R_co:
        """Send a frame, and run all that follows. Raises AssertionError once the WebSocket is closed, and TypeError."""
        if not isinstance(frame, str | bytes):
            raise TypeError(f"a frame is a str or bytes, not {frame!r:.60}")
        assert self._client.is_open, self._client.said()  # noqa: S101 - it fails the user's test
        self._client.soon(lambda handler: handler.receive(frame))
        return self._run()

    def receive(self) -> str | bytes:
        """Return the oldest frame that has come. Raises AssertionError where there is none."""
        assert self.frames, f"no frame has come: {self._client.said()}"  # noqa: S101
        return self.frames.pop(0)

    def close(self, code: int = 1000, reason: str = "") -> R_co:
        """Close as the client, and run its disconnect; code 1006: the client has gone without a close frame."""
        self._client.leave(code, reason)
        return self._run()

    @property
    def subprotocol(self) -> str | None:
        return self._client.accepted.subprotocol

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self._client.accepted.headers)

    @property
    def close_code(self) -> int | None:
        return self._client.closed.code if self._client.closed else None

    @property
    def close_reason(self) -> str:
        return self._client.closed.reason if self._client.closed else ""


class _Client:
    """The connection under a Socket: a ClientSocket that takes all at once."""

    home = ""
    log = UNLOGGED
    waiting_bytes = 0

    def __init__(self, path: str) -> None:
        self.is_open: bool = True
        self.is_accepted: bool = False
        self.accepted: Accept = Accept(None, [])
        self.closed: Close | None = None
        self.frames: list[str | bytes] = []
        self._path = path
        self._handler: SocketHandler | None = None
        self._loop: asyncio.AbstractEventLoop

    def open(self, forwarder: Forwarder, scope: Scope) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = forwarder.websocket(scope, self)

    def soon(self, act: Callable[[SocketHandler], None]) -> None:
        """Act on the application's side, on the event loop."""
        self._loop.call_soon(lambda: act(self._handler) if self._handler else None)

    def leave(self, code: int, reason: str) -> None:
        if self.is_open:
            self.is_open = False
            self.soon(lambda handler: handler.left(code, reason))

    def said(self) -> str:
        """Say how it is, for errors."""
        how = f"was closed with {self.closed.code} {self.closed.reason}".rstrip() if self.closed else "was closed"
        return f"the WebSocket {self._path} {'is open' if self.is_open else how}"

    def accept(self, accept: Accept) -> None:
        if self.is_open:
            self.is_accepted, self.accepted = True, accept

    def frame(self, frame: Frame) -> None:
        if self.is_open and self.is_accepted:
            self.frames.append(frame)

    def close(self, close: Close) -> None:
        if self.is_open:
            self.closed = close
            self.leave(close.code, close.reason)

    def run_task(self, serving: Any) -> None:
        """Only ASGI applications are served by tasks."""

    def pause(self) -> None:
        """Frames wait in the connection."""

    def resume(self) -> None:
        """Frames are taken at all times."""


class _Memory(Memory):
    """A memory that keeps records of jobs, and can forget, as a Redis that restarts empty."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.records: dict[str, JobRecord] = {}

    def send(self, sent: Sent) -> None:
        if not isinstance(sent, JobRecord):
            super().send(sent)
        elif sent.id not in self.records or self.records[sent.id].stage <= sent.stage:
            self.records[sent.id] = sent

    def forget_all(self) -> None:
        for kept in (self._streams, self._turns, self._last_wills, self._delayed, self.records):
            kept.clear()


class _Instance(Generic[R_co]):
    """What both kinds of instance share."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, target: Application | str) -> None:
        """Take what is served: an Application, or a TARGET as `asgictl start` has it. Raises TargetError."""
        self.application: Application = load_target(target) if isinstance(target, str) else target
        self.errors: list[BaseException] = []
        self._now = 0.0
        self._deaths = self._workers = 0
        self._is_lost = False
        self._memory = _Memory(clock=lambda: self._now)
        self._manifest = manifest_of(self.application, "test")
        self._streams = [channel.encode() for channel in sorted(event_channels(self._manifest))]
        self._worker: MemoryWorkerLayer
        self._forwarder: Forwarder
        self._clients: list[_Client] = []
        self._forgotten: Callable[[], None] = ignored

    def run(self) -> R_co:
        """Run every event that is due, and all that follows from it. Call it after a send outside of any handler."""
        raise NotImplementedError

    def advance(self, seconds: float) -> R_co:
        """Let time pass for delayed messages, and run what is due."""
        self._now += seconds
        return self.run()

    def kill_worker(self, times: int = 1) -> None:
        """Kill the worker of the next event as it commits, and then so many in all: the event runs again elsewhere.

        Nothing that its handler has sent leaves, but what it sent immediately; what it did elsewhere, as in a database,
        it does twice. `message.attempt` is one more. After 3 deaths the event is given up: see dead_letters.
        """
        self._deaths += times

    def lose_layer(self) -> None:
        """Take Redis away: events wait, and a send outside of any handler raises RedisError, until restore_layer()."""
        self._is_lost = True

    def restore_layer(self, *, is_empty: bool = False) -> R_co:
        """Bring Redis back, and run what waits. is_empty: it has forgotten everything, background messages too."""
        self._is_lost = False
        if is_empty:
            self._memory.forget_all()
            self._loop.call_soon(self._forgotten)
        return self.run()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Return the events that were given up."""
        return [DeadLetter(channel, reason) for channel, _, reason in self._memory.dead_letters]

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        config = InterfaceConfig("test", "", Bind("127.0.0.1:80"), LIMITS)
        self._forwarder = Forwarder(config, Readiness(None, "interface", "interface"), self._make_layer)
        self._begin_worker()
        self._worker.publish_manifest(self._manifest)
        self._outside = outside.use(outside.StandIn(self._send, self._record))
        await self._forwarder.start()

    async def _stop(self) -> None:
        outside.use(self._outside)
        await self._forwarder.drain()

    def _close(self) -> R_co:
        """Close what is open, and run the disconnects; background messages that were not run are dropped."""
        self._deaths = 0
        for client in self._clients:
            client.leave(GOING_AWAY, "")
        return self.restore_layer(is_empty=True)

    def _make_layer(self, _url: str, _name: str, *rest: Any, on_forgotten: Callable[[], None], **_: Any) -> Any:
        self._forgotten = on_forgotten
        return MemoryEventLayer(self._memory, *rest)

    def _begin_worker(self) -> None:
        self._workers += 1
        self._worker = MemoryWorkerLayer(self._memory, f"worker-{self._workers}.0", [])

    def _send(self, sent: Sent) -> None:
        """Send what comes from outside of any handler."""
        if isinstance(sent, Job):
            check_known(sent.name, self.application.background)
        if self._is_lost:
            raise RedisError(LOST)
        self._memory.send(sent)

    def _record(self, id: str) -> bytes | None:
        """Return what is asked for outside of any commit: of a task's result."""
        if self._is_lost:
            raise RedisError(LOST)
        record = self._memory.records.get(id)
        return record and record.content

    def _client(self, path: str, headers: Mapping[str, str], subprotocols: Sequence[str]) -> _Client:
        """Begin a handshake. Raises TargetError where an ASGI application is to answer it."""
        if callable(self.application.websocket):
            raise TargetError("asgictl.testing runs consumers; test an ASGI application with its framework's client")
        raw_path, _, query = path.partition("?")
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        host = [] if any(name == b"host" for name, _ in raw) else [(b"host", b"localhost")]
        rest = raw_path.encode(), query.encode(), host + raw, ("127.0.0.1", 50000), ("127.0.0.1", 80)
        scope = Scope("", "ws", "1.1", "", unquote(raw_path), *rest, list(subprotocols))
        client = _Client(path)
        self._clients.append(client)
        self._loop.call_soon(client.open, self._forwarder, scope)
        return client

    def _opened(self, client: _Client) -> Socket[R_co]:
        """Return a socket whose handshake was answered. Raises Refused."""
        if client.closed and not client.is_accepted:
            raise Refused(client.closed.status)
        assert client.is_accepted, f"the handshake was not answered: {LOST}"  # noqa: S101
        return Socket(client, self.run)

    def _rounds(self) -> Iterator[Running | None]:
        """Yield before each turn of the event loop: an event to run, or None."""
        quiet = events = 0
        while quiet < QUIET_ROUNDS:
            quiet += 1
            if entry := self._next():
                quiet, events = 0, events + 1
                assert events <= MOST_EVENTS, f"{entry.event.channel}: events follow each other without end"  # noqa: S101
                kind: Any = RunningJob if isinstance(entry.event, Job) else RunningTurn
                yield entry, kind(self.application, entry.event, self._worker.send_now)
            yield None

    def _next(self) -> Entry | None:
        """Have the worker take an event, and no more: it may die of it."""
        for stream in () if self._is_lost else self._streams:
            for entry in self._memory.take(self._worker.inbox, [stream], 1):
                return entry
        return None

    def _ended(self, entry: Entry, turn: RunningTurn | RunningJob, done: Any) -> None:
        """Commit an event, or have its worker die of it."""
        if turn.error is not None and not isinstance(turn.error, RetryLater):
            self.errors.append(turn.error)
        if self._deaths:
            self._deaths -= 1
            self._memory.release(self._worker.inbox.partition(".")[0])
            self._begin_worker()
        else:
            self._worker.commit(entry, done, turn.outcome.sends, turn.last_will())
        for name, depths in ((name, self.application.depths) for name in self.application.background):
            depths[name] = depths.bytes[name] = 0  # a real worker learns them anew each second


class Instance(_Instance[None]):
    """An instance in the memory of a test: `with Instance(application) as instance`.

    Group.send() and Channel.send() outside of any handler go to it, too, and results of Django tasks are read from it.
    errors: what handlers have raised, logged as in production. One at a time.
    """

    def __enter__(self) -> "Instance":
        self._runner = asyncio.Runner()
        self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._runner.run(self._stop())
        self._runner.close()

    def connect(
        self, path: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = ()
    ) -> Socket[None]:
        """Open a WebSocket at a path, with its query; returns it once it is accepted.

        Raises Refused, and TargetError where an ASGI application serves WebSockets: its framework has a client.
        """
        client = self._client(path, headers or {}, subprotocols)
        self.run()
        return self._opened(client)

    def run(self) -> None:
        """Run every event that is due, and all that follows from it. Call it after a send outside of any handler."""
        for running in self._rounds():
            if running is None:
                self._runner.run(asyncio.sleep(0))
                continue
            entry, turn = running
            done = self._runner.run(turn.run_async()) if turn.is_async else fresh_context().run(turn.run)
            self._ended(entry, turn, done)


class AsyncInstance(_Instance[Awaitable[None]]):
    """The same for an async test, on its event loop: `async with AsyncInstance(application) as instance`.

    What Instance does at once is to be awaited here: `await instance.connect(...)`, `await socket.send(...)`.
    Sync handlers run where asgiref's sync_to_async puts them.
    """

    async def __aenter__(self) -> "AsyncInstance":
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        await self._stop()

    async def connect(
        self, path: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = ()
    ) -> Socket[Awaitable[None]]:
        """Open a WebSocket at a path, with its query; returns it once it is accepted.

        Raises Refused, and TargetError where an ASGI application serves WebSockets: its framework has a client.
        """
        client = self._client(path, headers or {}, subprotocols)
        await self.run()
        return self._opened(client)

    async def run(self) -> None:
        """Run every event that is due, and all that follows from it. Await it after a send outside of any handler."""
        for running in self._rounds():
            if running is None:
                await asyncio.sleep(0)
                continue
            entry, turn = running
            done = await turn.run_async() if turn.is_async else await sync_to_async(turn.run)()
            self._ended(entry, turn, done)
