"""Options that several commands take."""

import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import click

from asgictl.cli.settings import Words
from asgictl.config import SERVERS, SILENT_SECONDS, Limits, edge_limits

DEFAULT_BIND = "127.0.0.1:8000"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
COUNTS = {"worker": click.IntRange(1, 64), "interface": click.IntRange(1, 16)}
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", value):
        raise click.BadParameter("1 to 32 letters, digits, - and _")
    return value


def option(*names: str, **settings: Any) -> Decorator:
    """An option that the environment can give too, as ASGICTL_ and its name."""
    return click.option(*names, envvar=variable(names[-1]), show_envvar=True, show_default=True, **settings)


def variable(name: str) -> str:
    return "ASGICTL_" + name.lstrip("-").replace("-", "_").upper()


def text(value: Any) -> str:
    """Return a value as the environment gives it to click."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def _server_options(_ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check what is passed on, while it can still be said in which option."""
    if value:
        from asgictl.interface.server_options import gunicorn_settings, uvicorn_options

        (uvicorn_options if param.name == "uvicorn_option" else gunicorn_settings)(value)
    return value


def _origins(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        if not re.fullmatch(r"\*|[\w*+.-]+://[^/]+", each):
            raise click.BadParameter(f"{each}: use scheme://host or scheme://host:port, * for any part; no path")
    return tuple(each.lower() for each in value)


def _root_path(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?", value):
        raise click.BadParameter(f"{value}: no path that a request can have; as /site, other characters as in no URL")
    return value


def _limits(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        edge_limits(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def check_server(server: str, *passed_on: tuple[str, ...]) -> None:
    if server != "uvicorn" and any(passed_on):  # TLS that was asked for must not be lost
        raise click.UsageError(f"--uvicorn-option and --gunicorn-option mean nothing on --server={server}")


def several(*each: Decorator) -> Decorator:
    """Several options as one decorator, so that `start` takes what the roles that it starts take."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(each):
            command = decorator(command)
        return command

    return decorate


name = option("--name", default="default", callback=_name, help="Tells instances apart, on a machine and in Redis.")
threads = option("--threads", type=click.IntRange(1, 1024), help="Threads of each process that run sync code.")
redis = option("--redis", metavar="URL", help="redis://, rediss:// or unix://; without, one of its own runs.")
needed_redis = option("--redis", metavar="URL", required=True, help="redis://, rediss:// or unix://.")
target = click.argument("target", envvar="ASGICTL_TARGET", default="asgictl.demo:app")
silent_seconds = option(
    "--silent-seconds",
    type=click.FloatRange(2),
    default=SILENT_SECONDS,
    help="Kill a process that has given no sign of life for so many seconds, because it is stopped or runs C code that"
    " holds the GIL, such as one long re.match. Raise it for code that must hold the GIL longer.",
)
LIMITS = Limits()
log_format = option("--log-format", type=click.Choice(["human", "json"]), default="human", help="Of our logs.")
passed_on: dict[str, Any] = {"metavar": "NAME=VALUE", "multiple": True, "type": Words(), "callback": _server_options}
of_interfaces = several(
    option("--uvicorn-option", help="Passed on to uvicorn, as ssl_keyfile; may be repeated.", **passed_on),
    option(
        "--server", type=click.Choice(SERVERS), default="uvicorn", help="What accepts connections; docs/servers.md."
    ),
    option("--max-message-bytes", type=click.IntRange(1), default=LIMITS.message_bytes, help="Above: close 1009."),
    option("--max-body-bytes", type=click.IntRange(0), default=LIMITS.body_bytes, help="Of a request; above: 413."),
    option(
        "--limit",
        metavar="NAME=VALUE",
        multiple=True,
        type=Words(),
        callback=_limits,
        help="What a client may do before it is refused, as header_bytes=65536; README has the names. May be repeated.",
    ),
    option("--capacity", type=click.IntRange(1), default=LIMITS.channel_events, help="Events of a channel; then 503."),
    option("--forwarded-allow-ips", default="127.0.0.1", help="Proxies whose X-Forwarded headers count; * for any."),
    option(
        "--allowed-origins",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        callback=_origins,
        help="Pages that may open consumers' WebSockets, as https://*.example.com; else the same host's.",
    ),
    option("--root-path", default="", callback=_root_path, help="Path below which a proxy serves the application."),
    option("--access-log", is_flag=True, help="Log each request and WebSocket; never a query string."),
)
of_workers = several(
    option("--timeout", type=click.FloatRange(0), default=60.0, help="Seconds an event may run; 0 for ever."),
    option("--only-channels", metavar="GLOB", multiple=True, type=Words(), help="Serve these; may be repeated."),
    option("--exclude-channels", metavar="GLOB", multiple=True, type=Words(), help="Not these; may be repeated."),
    option("--max-events", type=click.IntRange(0), default=0, help="End after about as many, to be replaced."),
    option("--drain-seconds", type=click.FloatRange(0), default=600.0, help="Of a stopping worker's ASGI sockets."),
    option("--max-memory-mib", type=click.IntRange(0), default=0, help="End when it has grown to it, to be replaced."),
)
release = click.option("--release", default="", help="Names the code that runs.  [default: a hash of it]")
