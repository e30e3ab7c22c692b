"""One worker process, in the foreground: loads the application, says that it is ready, and runs its loops."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import redis

from asgictl.app.application import Application, is_async, manifest_of
from asgictl.app.release import release_of
from asgictl.app.target import asgi_mounts, load_target
from asgictl.config import WorkerConfig
from asgictl.errors import RedisError, TargetError
from asgictl.layers.base import own_channel, process_id
from asgictl.layers.redis.check import check_redis
from asgictl.layers.redis.started import Started
from asgictl.layers.redis.worker_side import RedisWorkerLayer
from asgictl.machine import forks
from asgictl.machine.processes import end_children
from asgictl.machine.signals import on_signal
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.logs import take_rest
from asgictl.telemetry.metrics import Figures, longest
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.manifest import Manifest, encode_manifest, event_channels
from asgictl.wire.messages import BACKGROUND
from asgictl.worker.asgi import ASGIRuns
from asgictl.worker.async_runner import AsyncTurns, EventLoop
from asgictl.worker.loop import Loop
from asgictl.worker.watchdog import Watchdog

logger = logging.getLogger("asgictl.worker")


def serve(config: WorkerConfig, readiness: Readiness, run_dir: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight. Raises AsgictlError when it cannot start.

    run_dir: where a controller looks after a death; None when there is none.
    """
    stopping = threading.Event()
    application = load_target(config.target, config.app_dir)
    worker = Worker(application, config, process_id(), stopping, run_dir, readiness.record)
    worker.start()
    # What is told to stop before it serves, as a deploy that is given up, has nothing to drain.
    on_signal(lambda _number: worker.stop(), signal.SIGTERM, signal.SIGINT)
    kind = websockets_of(application)
    take_rest()
    readiness.ready(
        worker.figures,
        id=worker.identity,
        threads=config.threads,
        websocket=kind,
        release=worker.manifest.release,
        channels=worker.channels,
    )
    try:
        worker.run()
    finally:
        end_children()


class Worker:
    """The threads of one worker: start() those beside the caller's, then run() in that one until `stopping` is set."""

    def __init__(
        self,
        application: Application,
        config: WorkerConfig,
        identity: str,
        stopping: threading.Event,
        run_dir: Path | None = None,
        record: Callable[[], bytes] = bytes,
    ) -> None:
        channels = consumed(channels_of(application, config.target), config)
        self.channels: list[str] = channels
        self.identity = identity
        self._config = config
        self._rejections = Rejections()
        events = EventLoop(config.redis_url, config.name, identity, self._rejections.add)
        self._async_turns = AsyncTurns(events, config.timeout_seconds)
        self._asgi = ASGIRuns(application, events, config.timeout_seconds)
        own = own_channels_of(application, channels, events.inbox)
        self._layers = self._layers_of(channels, own)
        notes = run_dir / f"started-{os.getpid()}" if run_dir else None
        is_exact = not runs_side_by_side(application)
        self._loops = [
            Loop(application, layer, stopping, self._async_turns, self._asgi, Started(notes, part, is_exact=is_exact))
            for part, layer in enumerate(self._layers)
        ]
        self._threads = [threading.Thread(target=self._run, args=(loop,), name="worker") for loop in self._loops[1:]]
        release = release_of(config.target, config.release, run_dir, config.app_dir)
        self.manifest: Manifest = manifest_of(application, release, asgi_mounts(application))
        self._control = Watchdog(
            *(config, identity, self._loops, stopping, encode_manifest(self.manifest)),
            channels=channels,
            own=own,
            record=record,
            reject=self._rejections.add,
        )
        self._figures = Figures()
        self._stopping = stopping

    def _layers_of(self, channels: list[str], own: list[str]) -> list[RedisWorkerLayer]:
        """Return one for each thread, and one that no sync code keeps from reading the process's own channels."""

        def layer(name: str, read: list[str], *, is_own: bool = False) -> RedisWorkerLayer:
            where = (self._config.redis_url, self._config.name, f"{self.identity}.{name}")
            return RedisWorkerLayer(*where, read, self._rejections.add, is_own=is_own)

        found = [layer(str(thread), channels) for thread in range(self._config.threads)]
        return found + ([layer("own", own, is_own=True)] if own else [])

    def start(self) -> None:
        """Connect and start; raises RedisError, and TargetError when an application says that it cannot start."""
        forks.guard()
        check_redis(self._config.redis_url, self._config.name)
        try:
            for layer in self._layers:
                layer.connect()
            self._asgi.start()
            # What cannot start is not announced.
            self._layers[0].publish_manifest(self.manifest)
        except (redis.RedisError, OSError) as error:
            raise RedisError(f"Redis cannot be used: {error}") from error
        self._control.beat()
        for thread in (self._control.thread, *self._threads):
            thread.start()

    def run(self) -> None:
        """Serve; once stopped, finish what is in flight."""
        self._run(self._loops[0])
        for thread in self._threads:
            thread.join()
        self._asgi.finish(self._config.drain_seconds, self._config.drain_rate)
        self._async_turns.finish()  # before the cursors are left: leaving would take what is pending from its commits
        for layer in self._layers:
            layer.close()
        self._control.finish()

    def stop(self) -> None:
        """Have run() finish. From any thread."""
        self._control.stop()

    def figures(self) -> Figures:
        """Count, for `status`."""
        figures, loops = self._figures, self._loops
        figures.rejections = self._rejections.snapshot()
        figures.draining = int(self._stopping.is_set())
        figures.redis_silent_seconds = self._control.redis_silent_seconds
        running = sum(loop.running is not None for loop in loops)
        figures.events = sum(loop.events for loop in loops)
        figures.errors = sum(loop.errors for loop in loops) + self._async_turns.errors + self._asgi.errors
        runs = chain(self._async_turns.began(), self._asgi.began(), *(loop.now() for loop in loops))
        figures.runs = longest(runs)
        figures.running = running + self._async_turns.running + self._asgi.running
        figures.websockets = self._asgi.websockets
        figures.http = self._asgi.running - figures.websockets
        # Two looks at a loop are not one: a count must not shrink, which would pass for a new process.
        figures.busy_seconds = max(figures.busy_seconds, sum(loop.busy_so_far() for loop in loops))
        return figures

    def _run(self, loop: Loop) -> None:
        try:
            loop.run()
        finally:
            self.stop()  # one thread that fails takes the process with it; the supervisor starts another


def websockets_of(application: Application) -> str:
    """Say what serves an application's WebSockets, for `status`."""
    return "ASGI" if callable(application.websocket) else "consumers" if application.routes else "none"


def runs_side_by_side(application: Application) -> bool:
    """Whether events may be started side by side, so that a note of the last ones would say too little."""
    if callable(application.websocket) or asgi_mounts(application):
        return True
    return any(route.async_kinds for route in application.routes) or any(map(is_async, application.background.values()))


def channels_of(application: Application, target: str) -> list[str]:
    """Return the channels that this application consumes; raises TargetError for what split mode does not serve.

    They are read in this order. Somebody waits for what is no job: beside slow handlers, which release what was
    prefetched behind them, a backlog of jobs in front of requests would let none through.
    """
    found = event_channels(manifest_of(application, ""))
    if not found:
        raise TargetError(f"TARGET {target!r} serves nothing: give Application http=, websocket= or background=")
    return sorted(found, key=lambda channel: (channel.startswith(BACKGROUND), channel))


def own_channels_of(application: Application, channels: list[str], inbox: str) -> list[str]:
    """Return this worker's own channels, beside those that ASGI applications serve. inbox: of its event loop."""
    kinds = ["http.request"] if asgi_mounts(application) else []
    kinds += ["websocket.connect"] if callable(application.websocket) else []
    return [own_channel(channel, inbox) for channel in channels if channel.startswith(tuple(kinds))]


def consumed(channels: list[str], config: WorkerConfig) -> list[str]:
    """Return the channels that the globs of --only-channels and --exclude-channels leave; raises TargetError."""

    def matches(channel: str, globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(channel, glob) for glob in globs)

    left = [c for c in channels if matches(c, config.only) and not matches(c, config.exclude)]
    if not left:
        raise TargetError(
            f"--only-channels and --exclude-channels leave nothing of what TARGET {config.target!r} has: "
            + ", ".join(channels)
        )
    return left
