"""The application inside the server's own process: an ASGI application, for gunicorn with uvicorn's worker or another.

ASGI runs as it is. WSGI and sync consumers run in a pool of threads, async consumers on the server's event loop.
Background work comes by Redis: a worker's own loops run it, in threads beside the pool.
"""

import asyncio
import os
import shlex
import signal
import threading
from collections.abc import Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from asgictl.app.application import Application, manifest_of
from asgictl.app.boundary import UserCode
from asgictl.app.lifespan import Lifespan
from asgictl.app.outcome import Outcome
from asgictl.app.release import release_of
from asgictl.app.run import RunningTurn
from asgictl.app.runtime import Runtime, enter, raise_file_limit
from asgictl.app.target import asgi3, kind_of, load_target
from asgictl.config import SILENT_SECONDS, Limits, WorkerConfig
from asgictl.errors import AsgictlError, RedisError
from asgictl.inprocess.direct_flow import DirectFlow
from asgictl.inprocess.gunicorn_settings import Gunicorn
from asgictl.inprocess.limited_body import LimitedBody
from asgictl.interface.consumer_socket import ConsumerSocket, can_deny, local_path
from asgictl.interface.groups import Groups
from asgictl.interface.hosting import host, uvicorn_settings
from asgictl.interface.outbox import denial
from asgictl.interface.pending_request import Aborted
from asgictl.interface.server_options import uvicorn_options
from asgictl.layers.base import GroupLayer, process_id
from asgictl.layers.memory import MemoryGroupLayer
from asgictl.layers.redis.interface_side import RedisGroupLayer
from asgictl.layers.redis.leases import set_leases
from asgictl.layers.redis.started import Begun
from asgictl.machine import forks
from asgictl.machine.processes import end_children
from asgictl.machine.run_dir import RunDir
from asgictl.telemetry.access_log import WebSocketLog, log_request
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.logs import formatter, set_up
from asgictl.telemetry.metrics import CLIENT_GONE, Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.asgi import Receive, Send, plain_message
from asgictl.wire.manifest import Router
from asgictl.wire.messages import INTERNAL_ERROR, Close, Frames, Sent, TurnEvent, decode_scope, is_error
from asgictl.worker.process import Worker
from asgictl.worker.wsgi import WSGIRun


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

    It may be made before the server forks: what tells one process from another is made when its lifespan starts.
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
        self.groups = Groups()
        self.limits = limits
        self.figures = Figures()
        self.shed = Rejections()
        self._access_log = access_log
        self._application = application
        self._readiness = readiness
        self._threads = threads
        self._release = release
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="application")
        self._run_dir = run_dir
        self._layer_url = layer_url
        self._name = name
        self._numbers = count(1)
        self._turns: set[asyncio.Task[None]] = set()
        self._router = Router(manifest_of(application, ""))
        mounted = (*application.http.values(), *([application.websocket] if callable(application.websocket) else []))
        self._lifespans = {id(each): Lifespan(asgi3(each)) for each in mounted if kind_of(each) == "ASGI"}
        self._mounts = {id(each): partial(self._served(each), each) for each in application.http.values()}
        self._stopping = threading.Event()
        self._is_stopping = False
        self._background: Worker | None = None
        if application.background and layer_url is None:
            raise RedisError("TARGET has background channels, which need a Redis: give --redis redis://host:port")
        self._websocket = partial(self._asgi, application.websocket) if callable(application.websocket) else None

    def _identify(self) -> None:
        """Make what is this process's own."""
        self._id = process_id()
        pid, run_dir, redis_url = os.getpid(), self._run_dir, self._layer_url
        self._begun = Begun(run_dir / f"begun-{pid}" if run_dir else None)
        self._layer: GroupLayer = (
            RedisGroupLayer(redis_url, self._name, self.groups.deliver, self.shed.add)
            if redis_url
            else MemoryGroupLayer(self.groups.deliver)
        )
        if self._application.background and redis_url:
            # Nothing of it but its jobs; and what the application knows of its channels' depths.
            jobs = Application(background=self._application.background)
            jobs.depths = self._application.depths
            config = WorkerConfig(self._name, redis_url, "", self._threads, timeout_seconds=0)
            self._background = Worker(jobs, config, self._id, self._stopping, run_dir)
            self._background_thread = threading.Thread(target=self._run_background, name="background")

    def _served(self, mounted: Any) -> Any:
        return self._asgi if id(mounted) in self._lifespans else self._wsgi

    async def _asgi(self, mounted: Any, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        lifespan = self._lifespans[id(mounted)]
        await lifespan.application({**scope, "state": dict(lifespan.state)}, receive, send)

    async def _wsgi(self, mounted: Any, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> float:
        """Run a WSGI application in the pool: the one of the size that was asked for, for views and consumers alike."""
        flow = DirectFlow(self._new_id(), scope, receive, send)
        run = partial(copy_context().run, WSGIRun(flow).run, mounted)
        part = await asyncio.get_running_loop().run_in_executor(self._pool, run)
        self.figures.busy_seconds += part.run_seconds
        await flow.finish(part)
        return flow.run_seconds

    def _new_id(self) -> str:
        return f"{self._id}/{next(self._numbers):x}"

    def _report(self) -> Figures:
        self.figures.running = self.figures.http + len(self._turns)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell_shed)
        return self.figures

    def _tell_shed(self) -> None:
        self.figures.shed = self.shed.tell()
        self.figures.redis_silent_seconds = self._layer.silent_seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            self.figures.websockets += 1
            try:
                await self._serve_websocket(scope, receive, send)
            finally:
                self.figures.websockets -= 1

    async def _serve_websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        connection = self._new_id()
        if self._access_log:
            log = WebSocketLog(scope, connection, receive, send)
            receive, send = log.receive, log.send
        if self._websocket:
            begun = self._begun.begin("websocket", scope["path"])
            try:
                await _closing(self._websocket, scope, receive, send)
            finally:
                self._begun.end(begun)
        elif path := self._router.match(local_path(scope)):
            await ConsumerSocket(connection, scope, path, self, send).run(receive)
        else:
            await receive()
            for message in denial(Close(1000, "", 404), can_deny(scope)):
                await send(message)

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = LimitedBody(scope, receive, send, self.limits.body_bytes)
        answer = body.answer
        self.figures.http += 1
        begun = self._begun.begin(scope["method"], scope["path"])
        try:
            await self._serve_http(scope, body)
        finally:
            self._begun.end(begun)
            self.figures.http -= 1
            self.figures.events += 1
            self.figures.errors += answer.status >= 500
            answer.status = answer.status or CLIENT_GONE
            self.figures.answer(answer.status, answer.seconds, answer.run_seconds)
            if self._access_log:
                log_request(scope, self._new_id(), answer)

    async def _serve_http(self, scope: MutableMapping[str, Any], body: LimitedBody) -> None:
        if body.is_too_large:
            await body.refuse()
            return
        served = self._mounts.get(id(self._application.mount(local_path(scope))))
        if served is None:
            await body.send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await body.send({"type": "http.response.body", "body": b""})
            return
        outcome = Outcome(partial(self._send_now, None), self._application.depths)
        method, path = scope["method"], scope["path"]
        try:
            with UserCode("%s %s failed", method, path, expected=Aborted, is_cancellable=True) as ended, outcome:
                body.answer.run_seconds = await served(scope, body.receive, body.send) or 0.0
                if not body.has_ended:
                    raise RuntimeError("the application returned before its response was complete")
            if isinstance(ended.error, Aborted):
                raise ended.error
            if ended.error is not None:
                await body.fail()
        finally:
            self._publish(outcome.sent_with(body.answer.status, cut_off=not body.has_ended))

    def submit(self, socket: ConsumerSocket, event: TurnEvent) -> None:
        """Run a turn in the pool, or on this loop when its consumer is async."""
        begun = self._begun.begin(event.channel, decode_scope(event.scope).path)
        task = asyncio.get_running_loop().create_task(self._run(socket, event))
        self._turns.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._turns.discard(task)
            self._begun.end(begun)

        task.add_done_callback(ended)

    async def _run(self, socket: ConsumerSocket, event: TurnEvent) -> None:
        turn = RunningTurn(self._application, event, partial(self._send_now, socket))
        if turn.is_async:
            done = await turn.run_async()
        else:
            done = await asyncio.get_running_loop().run_in_executor(self._pool, turn.run)
            self.figures.busy_seconds += done.run_seconds
        self.figures.events += 1
        self.figures.errors += is_error(done)
        socket.done(done, None)
        self._publish(turn.outcome.sends)

    def _send_now(self, socket: ConsumerSocket | None, sent: Frames | Sent) -> None:
        """For immediately=True, from whichever thread the consumer or view runs in."""
        forks.check()
        if not isinstance(sent, Frames):
            self._loop.call_soon_threadsafe(self._layer.publish, sent)
        elif socket is not None:
            self._loop.call_soon_threadsafe(socket.deliver_all, sent.frames)

    def closed(self, socket: ConsumerSocket) -> None:
        """Nothing to let go of: the socket's last turn is done."""

    def skip(self, socket: ConsumerSocket) -> None:
        """Nothing waits in a queue here: a turn has begun."""

    def give_up(self, socket: ConsumerSocket, event: TurnEvent, reason: str) -> None:
        """No turn is lost without the process that holds its socket."""

    def _publish(self, sends: list[Sent]) -> None:
        for sent in sends:
            self._layer.publish(sent)

    def _run_background(self) -> None:
        assert self._background is not None  # noqa: S101 - the thread is made with it
        try:
            self._background.run()
        finally:
            if not self._is_stopping:
                os.kill(os.getpid(), signal.SIGTERM)  # a server that no longer does half its work is to be replaced

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start our own side, then every ASGI application; stop them in the opposite order."""
        await receive()
        self._loop = asyncio.get_running_loop()
        forks.guard()
        try:
            self._identify()
            await self._layer.start()
            for lifespan in self._lifespans.values():
                await lifespan.start()
            if self._background:
                await asyncio.to_thread(self._background.start)
                self._background_thread.start()
        except AsgictlError as error:
            self._readiness.failed(error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        kind = self._websockets()
        self._readiness.ready(self._report, id=self._id, threads=self._threads, websocket=kind, release=self._release)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for lifespan in self._lifespans.values():
            await lifespan.stop()
        await self._stop()
        await asyncio.to_thread(end_children)
        await send({"type": "lifespan.shutdown.complete"})

    def _websockets(self) -> str:
        return "ASGI" if self._websocket else "consumers" if self._application.routes else "none"

    async def _stop(self) -> None:
        """The server has closed every socket: let the last turns and jobs end, then let go of the layer."""
        self._is_stopping = True
        self._stopping.set()
        if self._background:
            await asyncio.to_thread(self._background_thread.join)
        if self._turns:
            await asyncio.wait(self._turns, timeout=self.limits.drain_seconds)
        await self._layer.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)


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
