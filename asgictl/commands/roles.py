"""One process in the foreground: what runs in containers, and what supervisor.conf starts."""

import os
import sys
from pathlib import Path

import click

from asgictl.commands.options import (
    DEFAULT_BIND,
    check_server,
    interface_options,
    log_format_option,
    name_option,
    needed_redis_option,
    option,
    release_option,
    target_argument,
    threads_option,
    worker_options,
)
from asgictl.configuration import Bind, InterfaceConfig, Limits, WorkerConfig
from asgictl.errors import AsgictlError
from asgictl.logs import set_up
from asgictl.readiness import Readiness
from asgictl.runtime import raise_file_limit


def _readiness(role: str) -> Readiness:
    raise_file_limit()
    readiness = Readiness(_run_dir(), role, _process(role))
    readiness.starting()
    return readiness


def _run_dir() -> Path | None:
    run_dir = os.environ.get("ASGICTL_RUN_DIR")
    return Path(run_dir) if run_dir else None


def _process(role: str) -> str:
    return os.environ.get("SUPERVISOR_PROCESS_NAME", role)


@click.command()
@option("--bind", default=DEFAULT_BIND, help="host:port, [IPv6]:port, unix:/path (0600), or fd://N, inherited.")
@needed_redis_option
@interface_options
@log_format_option
@name_option
def interface(
    bind: str,
    redis: str,
    name: str,
    server: str,
    max_message_bytes: int,
    max_body_bytes: int,
    capacity: int,
    forwarded_allow_ips: str,
    allowed_origins: tuple[str, ...],
    root_path: str,
    uvicorn_option: tuple[str, ...],
    access_log: bool,
    log_format: str,
) -> None:
    """Run one interface server in the foreground, as in a container."""
    from asgictl.interface.server import serve
    from asgictl.server_options import uvicorn_options

    check_server(server, uvicorn_option)
    set_up(log_format, _process("interface"))
    readiness = _readiness("interface")
    sizes = {"message_bytes": max_message_bytes, "body_bytes": max_body_bytes, "channel_events": capacity}
    limits = Limits(**sizes, allowed_origins=allowed_origins)
    try:
        started = serve(
            InterfaceConfig(
                *(name, redis, Bind(bind), limits, forwarded_allow_ips, root_path.rstrip("/")),
                *(server, uvicorn_options(uvicorn_option), access_log),
            ),
            readiness,
        )
    except AsgictlError as error:
        readiness.failed(error)
        raise
    sys.exit(0 if started else 1)


@click.command()
@target_argument
@needed_redis_option
@threads_option
@worker_options
@log_format_option
@release_option
@name_option
def worker(
    target: str,
    redis: str,
    threads: int | None,
    release: str,
    name: str,
    timeout: float,
    only_channels: tuple[str, ...],
    exclude_channels: tuple[str, ...],
    max_events: int,
    max_memory_mib: int,
    drain_seconds: float,
    log_format: str,
) -> None:
    """Run one worker in the foreground, as in a container.

    Channels are http.request, websocket.connect, websocket.receive and websocket.disconnect, each followed by .POOL
    where the application names a pool, and background.NAME. A pool of its own: --only-channels '*.slow' here, and
    --exclude-channels '*.slow' for the others.
    """
    from asgictl.runtime import Runtime, enter
    from asgictl.worker.server import serve

    set_up(log_format, _process("worker"))
    os.environ |= {"ASGICTL_REDIS": redis, "ASGICTL_NAME": name}  # where threads of the application's own send to
    readiness = _readiness("worker")
    enter(Runtime("split", _process("worker"), target))
    try:
        serve(
            WorkerConfig(
                *(name, redis, target, threads or 1, only_channels or ("*",), exclude_channels),
                *(timeout, max_events, max_memory_mib << 20, drain_seconds, release),
            ),
            readiness,
            _run_dir(),
        )
    except AsgictlError as error:
        readiness.failed(error)
        raise


@click.command(hidden=True)
def controller() -> None:
    """Run the controller of the instance in ASGICTL_RUN_DIR; supervisord starts it."""
    import asyncio

    from asgictl.controller import Controller

    environment = os.environ
    set_up(environment.get("ASGICTL_LOG_FORMAT", "human"), "controller")
    redis_url, name = environment.get("ASGICTL_REDIS"), environment["ASGICTL_NAME"]
    port = int(environment.get("ASGICTL_ADMIN_PORT", 0)) or None
    asyncio.run(Controller(Path(environment["ASGICTL_RUN_DIR"]), redis_url, name, port).serve())


@click.command("server", hidden=True)
def server() -> None:
    """Run one in-process server other than gunicorn's, on file descriptor 0; supervisord starts it."""
    from asgictl.inprocess import serve

    sys.exit(0 if serve() else 1)
