"""Options that several commands take."""

import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import click

from asgictl.cli.settings import Platform, Words
from asgictl.config import AFFINITIES, DRAIN_RATE, SERVERS, SILENT_SECONDS, Limits, edge_limits
from asgictl.layers.redis.url import parse_url
from asgictl.machine.run_dir import instance_names

NAME = r"[A-Za-z0-9_-]{1,32}"
DEFAULT_NAME = "default"
DEFAULT_BIND = Platform("PORT", "0.0.0.0:{}", "127.0.0.1:8000")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DEFAULT_WORKERS = Platform("WEB_CONCURRENCY", "{}", str(CORES))
COUNTS = {"worker": click.IntRange(1, 64), "interface": click.IntRange(1, 16)}
MOST_SECONDS = 1e9  # 31 years; a thread's wait overflows at ten times as much
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.FloatRange):
    """A number that clocks can count: nan, inf and more than MOST_SECONDS are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not abs(number) <= MOST_SECONDS:
            self.fail(f"{value} is not a number up to {MOST_SECONDS:.0f}", param, ctx)
        return number


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise click.BadParameter("1 to 32 letters, digits, - and _")
    return value


def _running(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Return the name that was given, else that of the only instance that runs here."""
    if value is not None:
        return _name(ctx, param, value)
    names = [] if ctx.params.get("redis") or ctx.params.get("every") else instance_names()
    if len(names) > 1 and DEFAULT_NAME not in names:
        raise click.UsageError(f"several instances run here: give --name, one of {', '.join(names)}")
    return DEFAULT_NAME if DEFAULT_NAME in names or not names else names[0]


def option(*names: str, **settings: Any) -> Decorator:
    """An option that the environment can give too, as ASGICTL_ and its name."""
    settings = {"show_default": getattr(settings.get("default"), "shown", True)} | settings
    return click.option(*names, envvar=variable(names[-1]), show_envvar=True, **settings)


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


def _redis(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        parse_url(value)
    return value


def _env_file(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Set its variables here, once: the processes that `start` starts inherit them."""
    os.environ.pop("ASGICTL_ENV_FILE", None)
    if value is not None:
        from dotenv import load_dotenv

        try:
            load_dotenv(value, encoding="utf-8")
        except ValueError as error:  # no UTF-8, a null byte
            raise click.BadParameter(f"{value}: {error}") from None
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


name = option("--name", default=DEFAULT_NAME, callback=_name, help="Name of the instance on this machine and in Redis.")
running = option("--name", callback=_running, help="Name of the instance.  [default: the one that runs here]")
threads = option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads of each process for sync code.  [default: 1; in-process as many as Python's pools]",
)
REDIS_URL = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
redis = option(
    "--redis",
    metavar="URL",
    is_eager=True,
    callback=_redis,
    help=f"URL of Redis: {REDIS_URL}. Without it, the instance runs its own Redis.",
)
needed_redis = option("--redis", metavar="URL", required=True, callback=_redis, help=f"URL of Redis: {REDIS_URL}.")
app_dir = option(
    "--app-dir",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    default=".",
    help="Directory to import TARGET from.",
)
env_file = option(
    "--env-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    is_eager=True,  # it may set what other options read
    callback=_env_file,
    help="File of NAME=VALUE lines to set in the environment, where NAME is not set yet.",
)
target = several(click.argument("target", envvar="ASGICTL_TARGET", default="asgictl.demo:app"), app_dir, env_file)
silent_seconds = option(
    "--silent-seconds",
    type=Number(2),
    default=SILENT_SECONDS,
    help="Kill a process that gives no sign of life for this many seconds, because it is stopped or runs C code that"
    " holds the GIL, such as one long re.match.",
)
LIMITS = Limits()
log_format = option("--log-format", type=click.Choice(["human", "json"]), default="human", help="Log format.")
passed_on: dict[str, Any] = {"metavar": "NAME=VALUE", "multiple": True, "type": Words(), "callback": _server_options}
of_interfaces = several(
    option("--uvicorn-option", help="Setting for uvicorn, such as ssl_keyfile=key.pem. Repeatable.", **passed_on),
    option("--server", type=click.Choice(SERVERS), default="uvicorn", help="Server that accepts connections."),
    option(
        "--max-message-bytes",
        type=click.IntRange(1),
        default=LIMITS.message_bytes,
        help="Largest WebSocket message. A larger one closes its WebSocket with 1009.",
    ),
    option(
        "--max-body-bytes",
        type=click.IntRange(0),
        default=LIMITS.body_bytes,
        help="Largest request body. A larger one is answered 413.",
    ),
    option(
        "--limit",
        metavar="NAME=VALUE",
        multiple=True,
        type=Words(),
        callback=_limits,
        help="Limit for clients, such as header_bytes=65536; the documentation lists the names. Repeatable.",
    ),
    option(
        "--capacity",
        type=click.IntRange(1),
        default=LIMITS.channel_events,
        help="Events that a channel holds. Further requests are answered 503.",
    ),
    option(
        "--forwarded-allow-ips", default="127.0.0.1", help="Proxies whose X-Forwarded headers are trusted; * for any."
    ),
    option(
        "--allowed-origins",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        callback=_origins,
        help="Origin whose pages may open consumers' WebSockets, such as https://*.example.com. Repeatable."
        "  [default: the same host]",
    ),
    option("--root-path", default="", callback=_root_path, help="Path below which a proxy serves the application."),
    option(
        "--affinity",
        type=click.Choice(AFFINITIES),
        default="connection",
        help="Requests that stay with one worker of an ASGI application: those of a keep-alive connection, or those of"
        " a client's address (split).",
    ),
    option("--access-log", is_flag=True, help="Log each request and WebSocket, without query strings."),
)
of_workers = several(
    option("--timeout", type=Number(0), default=60.0, help="Seconds that a handler may run; 0 for no limit."),
    option(
        "--slow-seconds",
        type=Number(0),
        default=0.0,
        help="Log events that take longer than this many seconds, with a stack; 0 for none.",
    ),
    option(
        "--only-channels",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        help="Serve only channels that match. Repeatable.",
    ),
    option(
        "--exclude-channels",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        help="Do not serve channels that match. Repeatable.",
    ),
    option(
        "--max-events",
        type=click.IntRange(0),
        default=0,
        help="Replace a worker after about this many events; 0 for never.",
    ),
    option(
        "--drain-seconds",
        type=Number(0),
        default=600.0,
        help="Seconds that a stopping worker keeps ASGI WebSockets and streams; in-process at most 30.",
    ),
    option(
        "--max-memory-mib",
        type=click.IntRange(0),
        default=0,
        help="Replace a worker that grows beyond this many MiB; 0 for never.",
    ),
)
drain_rate = option(
    "--drain-rate",
    type=Number(0, min_open=True),
    default=DRAIN_RATE,
    help="WebSockets that a draining instance closes each second (1012), or more if its deadline demands it.",
)
shutdown_delay = option(
    "--shutdown-delay",
    type=Number(0),
    default=0.0,
    help="Seconds to serve on after SIGTERM or `asgictl stop` while /readyz fails, so that load balancers leave first.",
)
probe_port = option(
    "--probe-port",
    metavar="[HOST:]PORT",
    default="",
    help="Serve /livez, /readyz and /metrics of this process at this address; without HOST, on 127.0.0.1.",
)
release = click.option("--release", default="", help="Name of the release.  [default: a hash of the site's own Python files]")
