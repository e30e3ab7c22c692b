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
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from asgictl.app.application import Application, manifest_of
from asgictl.app.lifespan import Lifespan
from asgictl.app.outcome import Outcome
from asgictl.app.release import release_of
from asgictl.app.runtime import Runtime, enter, raise_file_limit
from asgictl.app.slow import watch
from asgictl.app.target import asgi3, kind_of, load_target
from asgictl.config import DRAIN_RATE, SILENT_SECONDS, Bind, InterfaceConfig, Limits, WorkerConfig, edge_limits, share
from asgictl.errors import AsgictlError, RedisError
from asgictl.inprocess.asgi_http import ASGIRequest
from asgictl.inprocess.asgi_websocket import ASGISocket
from asgictl.inprocess.gunicorn_settings import Gunicorn
from asgictl.inprocess.local_layer import LocalLayer, LocalMemory
from asgictl.interface.edge import ClientRequest, ClientSocket, Edge, RequestHandler, SocketHandler
from asgictl.interface.forwarder import Forwarder
from asgictl.interface.hosting import host, uvicorn_settings
from asgictl.interface.server_options import uvicorn_options
from asgictl.interface.uvicorn_server import EdgeServer
from asgictl.layers.base import OnBroadcast, OnReply
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.layers.redis.interface_side import RedisGroupLayer
from asgictl.layers.redis.leases import set_leases
from asgictl.layers.redis.started import Begun, Started
from asgictl.machine import forks
from asgictl.machine.processes import end_children
from asgictl.machine.run_dir import RunDir
from asgictl.machine.titles import set_title
from asgictl.telemetry.access_log import WebSocketLog, log_request
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.logs import formatter, set_up, take_rest
from asgictl.telemetry.metrics import Figures, longest, total
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.manifest import encode_manifest
from asgictl.wire.messages import BACKGROUND, Frames, Scope, Sent
from asgictl.worker.asgi import scope_of
from asgictl.worker.loop import Loop
from asgictl.worker.process import Worker, channels_of, websockets_of

IDLE_SECONDS = 3600.0  # that a thread waits for an event; a stop wakes it
WAKE_SECONDS = 0.05  # between two attempts to do so


class ServerWorker(UvicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """uvicorn under gunicorn, with the settings that interface servers have."""

    @property
    def CONFIG_KWARGS(self) -> dict[str, Any]:  # noqa: N802
        options = uvicorn_options(shlex.split(os.environ.get("ASGICTL_UVICORN_OPTION", "")))
        settings = uvicorn_settings(limits_of(os.environ), root_path_of(os.environ), options)
        return {**settings, "timeout_notify": 0}  # at each tick

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = EdgeServer(self.config, self.wsgi)
        self._install_sigquit_handler()
        # gunicorn's own objects would close again what uvloop has closed, and another thread may have opened since
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def init_process(self) -> None:
        """Begin, as a process that gunicorn has forked."""
        for listener in self.sockets:
            forks.hold_listener(listener.sock)
        super().init_process()

    async def callback_notify(self) -> None:
        """Tell gunicorn each second that this process lives, or end it: a killed gunicorn's successor has others."""
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
        drain_seconds=min(
            defaults.drain_seconds, float(environment.get("ASGICTL_DRAIN_SECONDS", defaults.drain_seconds))
        ),
        drain_rate=share(float(environment.get("ASGICTL_DRAIN_RATE", DRAIN_RATE)), environment, "ASGICTL_WORKERS"),
        **edge_limits(shlex.split(environment.get("ASGICTL_LIMIT", ""))),
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
        self.config: InterfaceConfig = InterfaceConfig(
            name, "", Bind("fd://0"), replace(limits, inline_bytes=0), access_log=access_log
        )
        mounted = (*application.http.values(), *([application.websocket] if callable(application.websocket) else []))
        self._lifespans = {id(each): Lifespan(asgi3(each)) for each in mounted if kind_of(each) == "ASGI"}
        self.limits: Limits = self.config.limits
        self.figures: Figures = Figures()  # of what does not go by the forwarder
        self._requests: set[ASGIRequest] = set()  # that run
        self._stopping = threading.Event()
        self._background: Worker | None = None

    @property
    def rejections(self) -> Rejections:
        """What is refused, from the start of the lifespan on."""
        return self._forwarder.rejections

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
        told = (on_broadcast, hooks["reject"], self._readiness.record)
        shared = RedisGroupLayer(self._redis_url, name, *told) if self._redis_url else None
        ours = (self._application, self._memory, shared, self._begun, self.figures)
        self._layer = LocalLayer(*ours, id, on_reply, on_broadcast)
        return self._layer

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            if not self._stopping.is_set():
                os.kill(os.getpid(), signal.SIGTERM)  # a server that no longer does all its work is to be replaced

    def _report(self) -> Figures:
        served, own = self._forwarder.counted(), self.figures
        own.running = own.http + self._layer.running + sum(loop.running is not None for loop in self._loops)
        own.busy_seconds = max(own.busy_seconds, sum(loop.busy_so_far() for loop in self._loops))
        both = total([served, own])
        requests = [(request.answer.began, request.name) for request in list(self._requests)]
        both.runs = longest(chain(requests, self._layer.began(), *(loop.now() for loop in self._loops)))
        both.events += sum(loop.events for loop in self._loops)
        both.errors += sum(loop.errors for loop in self._loops)
        return both

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> RequestHandler:
        """Serve a request (see edge.Backend)."""
        mounted = self._application.mount(scope.local_path) if self._lifespans else None
        lifespan = self._lifespans.get(id(mounted))
        if lifespan is None:
            return self._forwarder.http(scope, body, length, more, client)
        request = ASGIRequest(scope, body, length, more, client, self.limits.body_bytes)
        client.run_task(self._serve(lifespan, request))
        return request

    async def _serve(self, lifespan: Lifespan, request: ASGIRequest) -> None:
        scope, answer, figures = request.scope, request.answer, self.figures
        begun = self._begun.begin(scope.method, scope.path)
        figures.http += 1
        self._requests.add(request)
        outcome = Outcome(self._send_now, self._application.depths, scope.headers)
        try:
            await request.run(lifespan.application, scope_of("http", scope, dict(lifespan.state)), outcome)
        finally:
            for sent in outcome.sent_with(answer.status, cut_off=request.is_cut_off):
                self._memory.send(sent)
            self._begun.end(begun)
            self._requests.discard(request)
            figures.http -= 1
            figures.events += 1
            figures.errors += answer.status >= 500
            figures.answer(answer.status, answer.seconds, answer.run_seconds)
            if self.config.access_log:
                log_request(scope, self._forwarder.new_id(), answer)

    def websocket(self, scope: Scope, client: ClientSocket) -> SocketHandler | None:
        """Serve a socket (see edge.Backend)."""
        lifespan = self._lifespans.get(id(self._application.websocket))
        if lifespan is None:
            return self._forwarder.websocket(scope, client)
        if self.config.access_log:
            client.log = WebSocketLog(scope, self._forwarder.new_id())
        socket = ASGISocket(client, self.limits)
        client.run_task(self._serve_socket(lifespan, socket, scope))
        return socket

    async def _serve_socket(self, lifespan: Lifespan, socket: ASGISocket, scope: Scope) -> None:
        self.figures.websockets += 1
        begun = self._begun.begin("websocket", scope.path)
        try:
            await socket.run(lifespan.application, scope_of("websocket", scope, dict(lifespan.state)))
        finally:
            self._begun.end(begun)
            self.figures.websockets -= 1

    def _send_now(self, sent: Frames | Sent) -> None:
        """For immediately=True of a view, which has nothing else to send than this."""
        forks.check()
        self._memory.send(cast(Sent, sent))

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Start our own side, then every ASGI application; stop them in the opposite order (see edge.Backend)."""
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
        take_rest()
        watch.start(float(os.environ.get("ASGICTL_SLOW_SECONDS", 0)))
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
        if self._background:
            self._background.stop()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._running:
            while thread.is_alive():
                self._memory.wake()  # again and again: one may be about to wait
                thread.join(WAKE_SECONDS)


def create_application() -> Edge:
    """Make the ASGI application that gunicorn gives uvicorn: the edge of a server's process."""
    return Edge(create_backend(), os.environ["ASGICTL_FORWARDED_ALLOW_IPS"])


def create_backend() -> InProcess:
    """Make the backend of a server's process, from the environment that `asgictl start` gives it."""
    environment = os.environ
    run_dir = RunDir(Path(environment["ASGICTL_RUN_DIR"])).path
    process = environment.get("SUPERVISOR_PROCESS_NAME", "server")
    raise_file_limit()
    silent_seconds = silent_seconds_of(environment)
    set_leases(silent_seconds)
    readiness = Readiness(run_dir, "server", process, silent_seconds)
    readiness.starting()
    enter(Runtime("inprocess", process, environment["ASGICTL_TARGET"]))
    app_dir = environment.get("ASGICTL_APP_DIR", "")
    try:
        application = load_target(environment["ASGICTL_TARGET"], app_dir)
        threads = int(environment["ASGICTL_THREADS"])
        redis_url, name = environment.get("ASGICTL_REDIS"), environment["ASGICTL_NAME"]
        release = release_of(environment["ASGICTL_TARGET"], run_dir=run_dir, app_dir=app_dir)
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
    set_title(_logging(environment)[1], environment["ASGICTL_NAME"])
    set_up(*_logging(environment))
    server, trusted = environment["ASGICTL_SERVER"], environment["ASGICTL_FORWARDED_ALLOW_IPS"]
    listener = forks.take_listener(0)
    forks.hold_listener(listener)
    return host(create_backend(), listener, server, trusted, root_path_of(environment), {})
