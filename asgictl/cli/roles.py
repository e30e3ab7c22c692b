"""asgictl interface and worker: one process in the foreground, as in containers and supervisor.conf."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from asgictl.app.runtime import raise_file_limit
from asgictl.cli import options
from asgictl.cli.help import Command
from asgictl.cli.options import DEFAULT_BIND, check_server, option
from asgictl.config import SILENT_SECONDS, Bind, InterfaceConfig, Limits, WorkerConfig, edge_limits, share
from asgictl.errors import AsgictlError
from asgictl.machine.run_dir import RunDir
from asgictl.machine.titles import set_title
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.logs import masked, set_up

logger = logging.getLogger("asgictl.roles")
ANSWER_SECONDS = 1.0  # that Redis has, before this role serves


@contextmanager
def _reporting(
    role: str,
    name: str,
    redis: str,
    bind: str = "",
    *,
    log_format: str,
    silent_seconds: float,
    probe_port: str,
    **_others: Any,
) -> Iterator[Readiness]:
    """Set up logging, and report to the controller: starting, ready, or the reason of a failure."""
    from asgictl.layers.redis.leases import leases_of, set_leases

    set_title(_process(role), name)  # first: it finds its room by an environment that is as it was
    set_up(log_format, _process(role))
    raise_file_limit()
    set_leases(silent_seconds)
    alone = partial(_alone, role, name, redis, bind)
    readiness = Readiness(_run_dir(), role, _process(role), silent_seconds, alone)
    readiness.starting()
    try:
        if probe_port and readiness.run_dir is None:  # else the controller has probes
            from asgictl.control.probes import address, serve_probes  # slow to load

            serve_probes(address(probe_port), readiness, leases_of(silent_seconds)[role], redis, name)
        yield readiness
    except AsgictlError as error:
        readiness.failed(error)
        raise


def _alone(role: str, name: str, redis_url: str, bind: str, report: dict[str, Any]) -> None:
    """Log the address or channels of a role that runs alone; warn if the other role is missing."""
    from redis import RedisError

    from asgictl.layers.redis.endpoint import endpoint
    from asgictl.layers.redis.keys import Keys
    from asgictl.layers.redis.leases import living

    what = Bind(bind).url if bind else ", ".join(report["channels"])
    logger.info("this %s of instance %r serves %s through Redis at %s", role, name, what, masked(redis_url))
    other = "worker" if role == "interface" else "interface"
    with suppress(RedisError), endpoint(redis_url).client(ANSWER_SECONDS) as client:  # others say why
        if not living(client, Keys(name), other):
            nothing = "instance %r has no %s: nothing is served until one runs with this --redis and --name"
            logger.warning(nothing, name, other)


def _run_dir() -> Path | None:
    """Return the checked run directory that `start` gave this process; None without one."""
    run_dir = os.environ.get("ASGICTL_RUN_DIR")
    return RunDir(Path(run_dir)).path if run_dir else None


def _process(role: str) -> str:
    return os.environ.get("SUPERVISOR_PROCESS_NAME", role)


@click.command(cls=Command)
@option(
    "--bind",
    default=DEFAULT_BIND,
    help="Address to listen on: host:port, [IPv6]:port, unix:/path (0600), or fd://N, an inherited socket.",
)
@options.needed_redis
@options.of_interfaces
@options.drain_rate
@options.shutdown_delay
@options.silent_seconds
@options.probe_port
@options.log_format
@options.name
def interface(bind: str, redis: str, name: str, server: str, **given: Any) -> None:
    """Run one interface in the foreground, as in a container."""
    from asgictl.interface.process import serve
    from asgictl.interface.server_options import uvicorn_options

    check_server(server, given["uvicorn_option"])
    with _reporting("interface", name, redis, bind, **given) as readiness:
        limits = Limits(
            message_bytes=given["max_message_bytes"],
            body_bytes=given["max_body_bytes"],
            channel_events=given["capacity"],
            allowed_origins=given["allowed_origins"],
            drain_rate=share(given["drain_rate"], os.environ, "ASGICTL_INTERFACES"),
            shutdown_delay_seconds=given["shutdown_delay"],
            **edge_limits(given["limit"]),
        )
        root_path, trusted = given["root_path"].rstrip("/"), given["forwarded_allow_ips"]
        passed_on = uvicorn_options(given["uvicorn_option"])
        config = InterfaceConfig(
            *(name, redis, Bind(bind), limits, trusted, root_path, server, passed_on, given["access_log"]),
            affinity=given["affinity"],
        )
        sys.exit(serve(config, readiness))


@click.command(cls=Command)
@options.target
@options.needed_redis
@options.threads
@options.of_workers
@options.drain_rate
@options.silent_seconds
@options.probe_port
@options.log_format
@options.release
@options.name
def worker(target: str, app_dir: str, redis: str, threads: int | None, release: str, name: str, **given: Any) -> None:
    """Run one worker in the foreground, as in a container.

    Channels are http.request, websocket.connect, websocket.receive and websocket.disconnect, each followed by .POOL
    where the application names a pool, and background.NAME. For a pool with workers of its own, start those with
    --only-channels '*.slow', and the others with --exclude-channels '*.slow'.
    """
    from asgictl.app.runtime import Runtime, enter
    from asgictl.app.slow import watch
    from asgictl.worker.process import serve

    with _reporting("worker", name, redis, **given) as readiness:
        os.environ |= {"ASGICTL_REDIS": redis, "ASGICTL_NAME": name}  # where threads of the application's own send to
        enter(Runtime("split", _process("worker"), target))
        watch.start(given["slow_seconds"])
        channels = given["only_channels"] or ("*",), given["exclude_channels"]
        ends = given["timeout"], given["max_events"], given["max_memory_mib"] << 20, given["drain_seconds"]
        rate = share(given["drain_rate"], os.environ, "ASGICTL_WORKERS")
        config = WorkerConfig(name, redis, target, threads or 1, *channels, *ends, rate, release, app_dir)
        serve(config, readiness, _run_dir())


@click.command(hidden=True)
def controller() -> None:
    """Run the controller of the instance in ASGICTL_RUN_DIR; supervisord starts it."""
    import asyncio

    from asgictl.control.controller import Controller

    environment = os.environ
    set_title("controller", environment["ASGICTL_NAME"])
    set_up(environment.get("ASGICTL_LOG_FORMAT", "human"), "controller")
    redis_url, name = environment.get("ASGICTL_REDIS"), environment["ASGICTL_NAME"]
    port = int(environment.get("ASGICTL_ADMIN_PORT", 0)) or None
    silent_seconds = float(environment.get("ASGICTL_SILENT_SECONDS", SILENT_SECONDS))
    run_dir = RunDir(Path(environment["ASGICTL_RUN_DIR"])).path
    made = Controller(run_dir, redis_url, name, port, silent_seconds=silent_seconds)
    asyncio.run(made.serve())


@click.command("server", hidden=True)
def server() -> None:
    """Run one in-process server other than gunicorn's, on file descriptor 0; supervisord starts it."""
    from asgictl.inprocess.server import serve

    sys.exit(0 if serve() else 1)
