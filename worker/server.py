"""One worker process, in the foreground: loads the application, says that it is ready, and runs its loops."""

import logging
import signal
import threading

import redis

from asgictl.application import Application
from asgictl.configuration import WorkerConfig
from asgictl.errors import RedisError, TargetError
from asgictl.layers.base import process_id
from asgictl.layers.redis import RedisWorkerLayer, check_redis
from asgictl.manifest import manifest_of
from asgictl.messages import VERSION
from asgictl.readiness import Readiness
from asgictl.target import kind_of, load_target
from asgictl.worker.async_turns import AsyncTurns
from asgictl.worker.loop import Loop

logger = logging.getLogger("asgictl.worker")
UNBLOCK_SECONDS = 0.05  # between attempts to end a read that waits


def serve(config: WorkerConfig, readiness: Readiness) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in hand. Raises AsgictlError when it cannot start."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    application = load_target(config.target)
    channels = channels_of(application, config.target)
    check_redis(config.redis_url)
    identity = process_id()
    layers = [
        RedisWorkerLayer(config.redis_url, config.name, f"{identity}.{thread}", channels)
        for thread in range(config.threads)
    ]
    try:
        for layer in layers:
            layer.connect()
        layers[0].publish_manifest(manifest_of(application, str(VERSION)))
    except (redis.RedisError, OSError) as error:
        raise RedisError(f"Redis cannot be used: {error}") from error
    async_turns = AsyncTurns(config.redis_url, config.name)
    loops = [Loop(application, layer, stopping, async_turns) for layer in layers]
    threads = [threading.Thread(target=_run, args=(loop, stopping), name="worker") for loop in loops[1:]]
    finished = threading.Event()
    control = threading.Thread(target=_control, args=(config.redis_url, layers, stopping, finished), name="control")
    for thread in (control, *threads):
        thread.start()
    readiness.ready(id=identity, threads=config.threads, websocket="consumers" if application.routes else "none")
    _run(loops[0], stopping)
    for thread in threads:
        thread.join()
    finished.set()
    control.join()


def channels_of(application: Application, target: str) -> list[str]:
    """Return the channels that this application consumes; raises TargetError for what split mode does not serve."""
    mounted = application.http.values()
    if callable(application.websocket) or (mounted and all(kind_of(each) == "ASGI" for each in mounted)):
        raise TargetError(
            f"TARGET {target!r} is an ASGI application, which split mode does not serve yet: use --mode=inprocess"
        )
    kinds = {kind for route in application.routes for kind in route.consumers}
    if not mounted and not kinds:
        raise TargetError(f"TARGET {target!r} serves nothing: give Application http= or websocket=")
    return [*(["http.request"] if mounted else []), *(f"websocket.{kind}" for kind in sorted(kinds))]


def _run(loop: Loop, stopping: threading.Event) -> None:
    try:
        loop.run()
    finally:
        stopping.set()  # one thread that fails takes the process with it; the supervisor starts another


def _control(url: str, layers: list[RedisWorkerLayer], stopping: threading.Event, finished: threading.Event) -> None:
    """Once the worker is to stop, end the reads that wait, so that it stops now and not a second later."""
    stopping.wait()
    while not finished.wait(UNBLOCK_SECONDS):
        try:
            with redis.Redis.from_url(url, socket_timeout=1) as client:
                for layer in layers:
                    client.client_unblock(layer.client_id)
        except redis.RedisError as error:
            logger.warning("reads end by themselves: %s", error)
