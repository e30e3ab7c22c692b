"""The application inside the server's own process: an ASGI application, for gunicorn with uvicorn's worker or another.

ASGI runs as it is. All else goes as in split mode, by the forwarder, a layer in memory and a worker's loops in threads;
turns of async consumers run on the server's event loop. Background work comes by Redis to a worker of its own.
"""

import asyncio
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from asgictl.app.application import Application, manifest_of
from asgictl.app.boundary import UserCode
from asgictl.app.lifespan import Lifespan
from asgictl.app.outcome import Outcome
from asgictl.app.release import release_of
from asgictl.app.runtime import Runtime, enter, raise_file_limit
from asgictl.app.target import asgi3, kind_of, load_target
from asgictl.config import SILENT_SECONDS, Bind, InterfaceConfig, Limits, WorkerConfig
from asgictl.errors import AsgictlError, RedisError
from asgictl.inprocess.gunicorn_settings import Gunicorn
from asgictl.inprocess.limited_body import LimitedBody
from asgictl.inprocess.local_layer import LocalLayer, LocalMemory
from asgictl.interface.consumer_socket import can_deny, local_path
from asgictl.interface.forwarder import Forwarder
from asgictl.interface.hosting import host, uvicorn_settings
from asgictl.interface.outbox import denial
from asgictl.interface.pending_request import Aborted
from asgictl.interface.server_options import uvicorn_options
from asgictl.layers.base import OnBroadcast, OnReply
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.layers.redis.interface_side import RedisGroupLayer
from asgictl.layers.redis.leases import set_leases
from asgictl.layers.redis.started import Begun, Started
from asgictl.machine import forks
from asgictl.machine.processes import end_children
from asgictl.machine.run_dir import RunDir
from asgictl.telemetry.access_log import WebSocketLog, log_request
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.logs import formatter, set_up
from asgictl.telemetry.metrics import CLIENT_GONE, Figures, total
from asgictl.wire.asgi import Receive, Send, plain_message
from asgictl.wire.manifest import encode_manifest
from asgictl.wire.messages import BACKGROUND, INTERNAL_ERROR, Close, Frames, Sent
from asgictl.worker.loop import Loop
from asgictl.worker.process import Worker, channels_of, websockets_of

IDLE_SECONDS = 3600.0  # that a thread waits for an event; a stop wakes it
WAKE_SECONDS = 0.05  # between two attempts to do so


class ServerWorker(UvicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """uvicorn under gunicorn, with the settings that interface servers have."""

    @property
    def CONFIG_KWARGS(self) -> dict[str, Any]:  # noqa: N802
        options = uvicorn_options(shlex.split(os.environ.get("ASGICTL_UVICORN_OPTION", "")))
        return uvicorn_settings(limits_of(os.environ), root_path_of(os.environ), options)

    def init_process(self) -> None:
        """Begin, as a process that gunicorn has forked."""
        for listener in self.sockets:
            forks.hold_listener(listener.sock)
        super().init_process()

    async def callback_notify(self) -> None:
        """Each second. A killed gunicorn has a successor, which has servers of its own."""
        await super().callback_notify()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)


class ServerLogger(Logger):  # type: ignore[misc]
    """Has gunicorn, and uvicorn under it, log as everything else does."""

    def setup(self, cfg: Any) -> None:
        """Set gunicorn's handlers up, with our formatter."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter(*_logging(os.environ)))


def run() -> None:
    """Run gunicorn on this process's command line, as supervisor.conf does."""
    set_up(*_logging(os.environ))
    # gunicorn would close descriptor 0, and have the next file that it opens for standard input
    listener = forks.take_listener(0).detach()
    sys.argv = [f"fd://{listener}" if each == "fd://0" else each for each in sys.argv]
    Gunicorn(silent_seconds_of(os.environ)).run()


def _logging(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the format of logs, and this process's name."""
    return environment.get("ASGICTL_LOG_FORMAT", "human"), environment.get("SUPERVISOR_PROCESS_NAME", "server")


def limits_of(environment: Mapping[str, str]) -> Limits:
    """Return the limits that `asgictl start` put into the environment of a server."""
    defaults = Limits()
    return Limits(
        message_bytes=int(environment.get("ASGICTL_MAX_MESSAGE_BYTES", defaults.message_bytes)),
        body_bytes=int(environment.get("ASGICTL_MAX_BODY_BYTES", defaults.body_bytes)),
        allowed_origins=tuple(shlex.split(environment.get("ASGICTL_ALLOWED_ORIGINS", ""))),
    )


def root_path_of(environment: Mapping[str, str]) -> str:
    """Return the path below which a proxy serves, as `asgictl start` put it into the environment of a server."""
    return environment.get("ASGICTL_ROOT_PATH", "").rstrip("/")


def silent_seconds_of(environment: Mapping[str, str]) -> float:
    """Return for how long a process may say nothing, as `asgictl start` put it into the environment of a server."""
    return float(environment.get("ASGICTL_SILENT_SECONDS", SILENT_SECONDS))


class InProcess:
    """The ASGI application that serves `application` in this process.

    WSGI applications and consumers are served as by an interface and its workers, whose layer is this process's memory;
    ASGI applications as their server would. It may be made before the server forks: what tells one process from another
    is made when its lifespan starts.
    """

    def __init__(
        self,
        application: Application,
        layer_url: str | None,
        name: str,
        threads: int,
        readiness: Readiness,
        release: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        access_log: bool = False,
        run_dir: Path | None = None,
    ) -> None:
        if application.background and layer_url is None:
            raise RedisError("TARGET has background channels, which need a Redis: give --redis redis://host:port")
        self._application = application
        self._redis_url = layer_url
        self._readiness = readiness
        self._threads = threads
        self._release = release
        self._run_dir = run_dir
        self.config = InterfaceConfig(name, "", Bind("fd://0"), replace(limits, inline_bytes=0), access_log=access_log)
        mounted = (*application.http.values(), *([application.websocket] if callable(application.websocket) else []))
        self._lifespans = {id(each): Lifespan(asgi3(each)) for each in mounted if kind_of(each) == "ASGI"}
        self._figures = Figures()  # of what does not go by the forwarder
        self._stopping = threading.Event()
        self._background: Worker | None = None

    def _identify(self) -> None:
        """Make what is this process's own."""
        application, redis_url, pid = self._application, self._redis_url, os.getpid()
        self._begun = Begun(self._run_dir / f"begun-{pid}" if self._run_dir else None)
        self._memory = LocalMemory()
        self._memory.manifest = encode_manifest(manifest_of(application, self._release))
        self._forwarder = Forwarder(self.config, self._readiness, self._make_layer)
        identity = self._forwarder.id
        channels = [each for each in channels_of(application, "") if not each.startswith(BACKGROUND)]
        is_sync = bool(application.routes) or len(self._lifespans) < len(application.http)
        layers = [
            MemoryWorkerLayer(self._memory, f"{identity}.{number}", channels, IDLE_SECONDS)
            for number in range(self._threads if is_sync else bool(channels))
        ]
        self._memory.threads = len(layers)
        started = Started(None, 0)
        self._loops = [Loop(application, layer, self._stopping, None, None, started, prefetch=1) for layer in layers]
        if application.background and redis_url:
            # Nothing of it but its jobs; and what the application knows of its channels' depths.
            jobs = Application(background=application.background)
            jobs.depths = application.depths
            config = WorkerConfig(self.config.name, redis_url, "", self._threads, timeout_seconds=0)
            self._background = Worker(jobs, config, identity, self._stopping, self._run_dir)
        runs = [*(loop.run for loop in self._loops), *([self._background.run] if self._background else [])]
        # Daemons: a server that fails must not leave a process behind that waits for events.
        self._running = [
            threading.Thread(target=self._run, args=(run,), name="application", daemon=True) for run in runs
        ]
        if self._background:
            self._running[-1].name = "background"

    def _make_layer(
        self, _url: str, name: str, id: str, on_reply: OnReply, on_broadcast: OnBroadcast, **hooks: Any
    ) -> LocalLayer:
        shared = RedisGroupLayer(self._redis_url, name, on_broadcast, hooks["reject"]) if self._redis_url else None
        ours = (self._application, self._memory, shared, self._begun, self._figures)
        self._layer = LocalLayer(*ours, id, on_reply, on_broadcast)
        return self._layer

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            if not self._stopping.is_set():
                os.kill(os.getpid(), signal.SIGTERM)  # a server that no longer does all its work is to be replaced

    def _report(self) -> Figures:
        served, own = self._forwarder.figures, self._figures
        own.running = own.http + self._layer.running + sum(loop.running is not None for loop in self._loops)
        own.busy_seconds = max(own.busy_seconds, sum(loop.busy_so_far() for loop in self._loops))
        both = total([served, own])
        both.events += sum(loop.events for loop in self._loops)
        both.errors += sum(loop.errors for loop in self._loops)
        return both

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            begun = self._begun.begin(scope["method"], scope["path"])
            try:
                mounted = self._application.mount(local_path(scope)) if self._lifespans else None
                if lifespan := self._lifespans.get(id(mounted)):
                    await self._http(lifespan, scope, receive, send)
                else:
                    await self._forwarder(scope, receive, send)
            finally:
                self._begun.end(begun)
        elif lifespan := self._lifespans.get(id(self._application.websocket)):
            await self._websocket(lifespan, scope, receive, send)
        else:
            await self._forwarder(scope, receive, send)

    async def _websocket(
        self, lifespan: Lifespan, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        if self.config.access_log:
            log = WebSocketLog(scope, self._forwarder.new_id(), receive, send)
            receive, send = log.receive, log.send
        self._figures.websockets += 1
        begun = self._begun.begin("websocket", scope["path"])
        try:
            await _closing(lifespan.application, {**scope, "state": dict(lifespan.state)}, receive, send)
        finally:
            self._begun.end(begun)
            self._figures.websockets -= 1

    async def _http(self, lifespan: Lifespan, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = LimitedBody(scope, receive, send, self.config.limits.body_bytes)
        answer, figures = body.answer, self._figures
        figures.http += 1
        try:
            if body.is_too_large:
                await body.refuse()
            else:
                await self._serve(lifespan, scope, body)
        finally:
            figures.http -= 1
            figures.events += 1
            figures.errors += answer.status >= 500
            answer.status = answer.status or CLIENT_GONE
            figures.answer(answer.status, answer.seconds, answer.run_seconds)
            if self.config.access_log:
                log_request(scope, self._forwarder.new_id(), answer)

    async def _serve(self, lifespan: Lifespan, scope: MutableMapping[str, Any], body: LimitedBody) -> None:
        outcome = Outcome(self._send_now, self._application.depths)
        given = {**scope, "state": dict(lifespan.state)}
        try:
            with (
                UserCode(
                    "%s %s failed", scope["method"], scope["path"], expected=Aborted, is_cancellable=True
                ) as ended,
                outcome,
            ):
                await lifespan.application(given, body.receive, body.send)
                if not body.has_ended:
                    raise RuntimeError("the application returned before its response was complete")
            if isinstance(ended.error, Aborted):
                raise ended.error
            if ended.error is not None:
                await body.fail()
        finally:
            for sent in outcome.sent_with(body.answer.status, cut_off=not body.has_ended):
                self._memory.send(sent)

    def _send_now(self, sent: Frames | Sent) -> None:
        """For immediately=True of a view, which has nothing else to send than this."""
        forks.check()
        self._memory.send(cast(Sent, sent))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start our own side, then every ASGI application; stop them in the opposite order."""
        await receive()
        forks.guard()
        try:
            self._identify()
            await self._forwarder.start()
            for lifespan in self._lifespans.values():
                await lifespan.start()
            if self._background:
                await asyncio.to_thread(self._background.start)
        except AsgictlError as error:
            self._readiness.failed(error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        for thread in self._running:
            thread.start()
        kind = websockets_of(self._application)
        self._readiness.ready(
            self._report, id=self._forwarder.id, threads=self._threads, websocket=kind, release=self._release
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for lifespan in self._lifespans.values():
            await lifespan.stop()
        await self._stop()
        await asyncio.to_thread(end_children)
        await send({"type": "lifespan.shutdown.complete"})

    async def _stop(self) -> None:
        """The server has closed every socket: let the last turns and jobs end."""
        await self._forwarder.drain()
        self._stopping.set()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._running:
            while thread.is_alive():
                self._memory.wake()  # again and again: one may be about to wait
                thread.join(WAKE_SECONDS)


async def _closing(application: Any, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Run an ASGI application's WebSocket, and end it as split mode does; uvicorn would send no close frame."""
    is_answered = is_open = is_gone = False

    async def receiving() -> MutableMapping[str, Any]:
        nonlocal is_answered, is_open, is_gone
        message = await receive()
        if message["type"] == "websocket.disconnect":
            is_answered, is_open, is_gone = True, False, True
        return message

    async def sending(message: MutableMapping[str, Any]) -> None:
        nonlocal is_answered, is_open
        if is_gone and message["type"] == "websocket.close":
            return  # as in split mode
        await send(plain_message(message))
        is_answered, is_open = True, message["type"] in {"websocket.accept", "websocket.send"}

    with UserCode("WebSocket %s failed", scope["path"], is_cancellable=True) as ended:
        await application(scope, receiving, sending)
        if not is_answered:
            raise RuntimeError("the application returned without answering the handshake")
    code = 1000 if ended.error is None else INTERNAL_ERROR
    ending = [{"type": "websocket.close", "code": code}] if is_open else denial(Close(code, "", 500), can_deny(scope))
    if is_open or not is_answered:
        with suppress(OSError):  # the client has left meanwhile
            for message in ending:
                await send(message)


def create_application() -> InProcess:
    """Make the ASGI application of a server's process, from the environment that `asgictl start` gives it."""
    environment = os.environ
    run_dir = RunDir(Path(environment["ASGICTL_RUN_DIR"])).path
    process = environment.get("SUPERVISOR_PROCESS_NAME", "server")
    raise_file_limit()
    silent_seconds = silent_seconds_of(environment)
    set_leases(silent_seconds)
    readiness = Readiness(run_dir, "server", process, silent_seconds)
    readiness.starting()
    enter(Runtime("inprocess", process, environment["ASGICTL_TARGET"]))
    try:
        application = load_target(environment["ASGICTL_TARGET"])
        threads = int(environment["ASGICTL_THREADS"])
        redis_url, name = environment.get("ASGICTL_REDIS"), environment["ASGICTL_NAME"]
        release = release_of(environment["ASGICTL_TARGET"], run_dir=run_dir)
        return InProcess(
            *(application, redis_url, name, threads, readiness, release, limits_of(environment)),
            access_log=environment.get("ASGICTL_ACCESS_LOG") == "True",
            run_dir=run_dir,
        )
    except AsgictlError as error:
        readiness.failed(error)
        raise SystemExit(error.exit_code) from error


def serve() -> bool:
    """Serve it on file descriptor 0, on ASGICTL_SERVER, as hosting.host does."""
    environment = os.environ
    set_up(*_logging(environment))
    server, trusted = environment["ASGICTL_SERVER"], environment["ASGICTL_FORWARDED_ALLOW_IPS"]
    listener, limits = forks.take_listener(0), limits_of(environment)
    forks.hold_listener(listener)
    return host(create_application(), listener, server, limits, trusted, root_path_of(environment), {})
