"""Runs ASGI applications on the worker's event loop: a connection stays with this worker until it ends."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from asgictl.app.application import Application
from asgictl.app.lifespan import Lifespan
from asgictl.app.target import asgi3, kind_of
from asgictl.config import DRAIN_RATE
from asgictl.errors import WireError
from asgictl.layers.base import Entry
from asgictl.layers.redis.keys import interface_of
from asgictl.machine.pace import spread
from asgictl.wire.messages import Connect, InterfaceDied, Job, Request, Scope, WorkerMessage, decode_scope
from asgictl.worker.asgi_http import HTTPRun
from asgictl.worker.asgi_websocket import WebSocketRun
from asgictl.worker.async_runner import EventLoop

logger = logging.getLogger("asgictl.worker")
CAPACITY = 4096  # connections in flight; a worker reads no more events until one has ended
WAIT_SECONDS = 0.05  # between looks at whether one has
SPREAD_SHARE = 2 / 3  # of a drain: its last part, in which sockets are closed one after another
CLOSE_SECONDS = 5.0  # that an application has after its sockets were closed


class ASGIRuns:
    """start() first. serves(): whether an event is for an ASGI application; if so begin() runs it.

    timeout_seconds: that an application may take to answer, and to end once its connection has; 0 for ever.
    """

    def __init__(self, application: Application, events: EventLoop, timeout_seconds: float = 0) -> None:
        self._application = application
        self._events = events
        self._timeout_seconds = timeout_seconds
        mounted = {id(each): each for each in application.http.values() if kind_of(each) == "ASGI"}
        if callable(application.websocket):
            mounted[id(application.websocket)] = application.websocket
        self._lifespans = {key: Lifespan(asgi3(each)) for key, each in mounted.items()}
        self._runs: dict[tuple[str, bytes], HTTPRun | WebSocketRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: int = 0
        events.on_message = self._take
        events.on_forgotten = self._forgotten

    def start(self) -> None:
        """Start the applications' lifespans; raises TargetError when one says that it cannot start."""
        if self._lifespans:
            self._events.start()
            for lifespan in self._lifespans.values():
                self._events.submit(lifespan.start()).result()

    @property
    def running(self) -> int:
        """How many connections are in flight."""
        return len(self._runs)

    @property
    def websockets(self) -> int:
        """How many of them are WebSockets."""
        return sum(isinstance(run, WebSocketRun) for run in list(self._runs.values()))

    def began(self) -> list[tuple[float, Callable[[], str]]]:
        """Return of each request in flight when it began, and what names it. From any thread."""
        return [(run.began, run.name) for run in list(self._runs.values()) if isinstance(run, HTTPRun)]

    def finish(self, drain_seconds: float, drain_rate: float = DRAIN_RATE) -> None:
        """Serve what is in flight to its end, sockets for as long as is said; then end the lifespans.

        drain_rate: sockets that are closed a second, so that the last one closes when that time has passed.
        """
        if self._lifespans:
            self._events.submit(self._drain(drain_seconds, drain_rate)).result()

    def serves(self, entry: Entry) -> bool:
        """Whether an event is for an ASGI application."""
        return bool(self._lifespans) and self._lifespan_of(entry) is not None

    def begin(self, entry: Entry) -> bool:
        """Run an event; returns whether there is no room for another. Raises WireError for what cannot be run."""
        event, lifespan = entry.event, self._lifespan_of(entry)
        if not isinstance(event, Request | Connect):
            raise WireError(f"an ASGI application has no {event.channel}")
        if lifespan and (event.connection, entry.id) not in self._runs:
            state = dict(lifespan.state)
            run: HTTPRun | WebSocketRun
            if isinstance(event, Request):
                scope = scope_of("http", event.scope, state)
                run = HTTPRun(entry, event, scope, self._events, self._timeout_seconds, self._application.depths)
            else:
                scope = scope_of("websocket", decode_scope(event.scope), state)
                run = WebSocketRun(entry, event, scope, self._events, self._timeout_seconds)
            self._runs[event.connection, entry.id] = run
            self._events.submit(self._run((event.connection, entry.id), run, lifespan.application))
        return len(self._runs) >= CAPACITY

    def wait_for_room(self, stopping: threading.Event) -> None:
        """Wait until a connection has ended, or the worker is to stop."""
        while len(self._runs) >= CAPACITY and not stopping.wait(WAIT_SECONDS):
            pass

    def _lifespan_of(self, entry: Entry) -> Lifespan | None:
        """Return that of the ASGI application that an event is for, None for any other event."""
        event, application = entry.event, self._application
        if isinstance(event, Job):
            return None
        serving = application.mount(event.scope.local_path) if isinstance(event, Request) else application.websocket
        return self._lifespans.get(id(serving))

    async def _run(self, key: tuple[str, bytes], run: HTTPRun | WebSocketRun, application: Callable[..., Any]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - submit() made it
        self._tasks.add(task)
        try:
            await run.run(application)
        finally:
            self._tasks.discard(task)
            self.errors += run.has_failed
            del self._runs[key]

    def _take(self, message: WorkerMessage) -> None:
        if isinstance(message, InterfaceDied):
            for (connection, _), run in list(self._runs.items()):
                if interface_of(connection) == message.interface:
                    run.take(message)
        elif found := self._runs.get((message.connection, message.entry)):
            found.take(message)

    def _forgotten(self) -> None:
        for run in list(self._runs.values()):
            run.restart() if isinstance(run, WebSocketRun) else run.end_early()

    def _sockets(self) -> deque[WebSocketRun]:
        return deque(run for run in self._runs.values() if isinstance(run, WebSocketRun))

    async def _drain(self, drain_seconds: float, drain_rate: float) -> None:
        logger.info("draining: %d connections are open", len(self._runs))
        end, sockets = asyncio.get_running_loop().time() + drain_seconds, self._sockets()
        if self._tasks:
            seconds = min(len(sockets) / drain_rate, drain_seconds * SPREAD_SHARE)
            await asyncio.wait(self._tasks, timeout=drain_seconds - seconds)
        await spread(self._sockets(), WebSocketRun.restart, drain_rate, end)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for run in self._runs.values():
            run.code.is_cancellable = True  # it is lost with this worker, and answered for elsewhere
        for task in self._tasks:
            logger.warning("an application did not end within %.0f s of its connection's end", CLOSE_SECONDS)
            task.cancel()
        for lifespan in self._lifespans.values():
            await lifespan.stop()


def scope_of(kind: str, scope: Scope, state: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI connection scope, of type "http" or "websocket"."""
    is_http = kind == "http"
    made = {
        **asdict(scope),
        "type": kind,
        # As uvicorn says it. From 2.4 on Starlette learns that a client has left only when it sends something.
        "asgi": {"version": "3.0", "spec_version": "2.3" if is_http else "2.4"},
        "headers": list(scope.headers),  # copies: events share a scope
        "subprotocols": list(scope.subprotocols),
        "extensions": {} if is_http else {"websocket.http.response": {}},
        "state": state,
    }
    del made["subprotocols" if is_http else "method"]
    return made
