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
from asgictl.machine.run_dir import DEFAULT_NAME, instance_names, unnamed

NAME = r"[A-Za-z0-9_-]{1,32}"
DEFAULT_BIND = Platform("PORT", "0.0.0.0:{}", "127.0.0.1:8000")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DEFAULT_WORKERS = Platform("WEB_CONCURRENCY", "{}", str(CORES))
MOST_SECONDS = 1e9  # 31 years; a thread's wait overflows at ten times as much
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Whole(click.IntRange):
    """A whole number, N in help."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N"


COUNTS = {"worker": Whole(1, 64), "interface": Whole(1, 16)}


class Number(click.FloatRange):
    """A number within MOST_SECONDS; neither nan nor inf."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not abs(number) <= MOST_SECONDS:
            self.fail(f"{value} is not a number up to {MOST_SECONDS:.0f}", param, ctx)
        return number


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise click.BadParameter("use 1 to 32 letters, digits, - and _")
    return value


def _running(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Return the given name, else that of the only instance that is running here."""
    if value is not None:
        return _name(ctx, param, value)
    names = [] if ctx.params.get("redis") or ctx.params.get("every") else instance_names()
    if not (found := unnamed(names)):
        raise click.UsageError(f"several instances run here: give --name, one of {', '.join(names)}")
    return found


def option(*names: str, **settings: Any) -> Decorator:
    """Make an option that has an environment variable too: ASGICTL_ and its name."""
    default = settings.get("default")
    settings = {"show_default": getattr(default, "shown", default != "")} | settings
    return click.option(*names, envvar=variable(names[-1]), show_envvar=True, **settings)


def variable(name: str) -> str:
    return "ASGICTL_" + name.lstrip("-").replace("-", "_").upper()


def text(value: Any) -> str:
    """Return a value as text for an environment variable."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def _server_options(_ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check the settings of uvicorn or gunicorn, so that an error names their option."""
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
        raise click.BadParameter(f"{value}: not the path of a URL; write it as /site")
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
    """Set the file's variables in this process, whose children inherit them."""
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
        raise click.UsageError(f"--uvicorn-option and --gunicorn-option do not apply to --server={server}")


def several(*each: Decorator) -> Decorator:
    """Combine several options into one decorator, so that `start` has the options of its roles."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(each):
            command = decorator(command)
        return command

    return decorate


name: Decorator = option(
    "--name", default=DEFAULT_NAME, callback=_name, help="Name of the instance on this machine and in Redis."
)
running: Decorator = option(
    "--name", callback=_running, help="Name of the instance.  [default: the instance that runs here]"
)
threads: Decorator = option(
    "--threads",
    type=Whole(1, 1024),
    help="Threads of each process for sync code.  [default: 1; in-process as many as Python's pools]",
)
REDIS_URL = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
redis: Decorator = option(
    "--redis",
    metavar="URL",
    is_eager=True,
    callback=_redis,
    help=f"URL of Redis: {REDIS_URL}. Without it, the instance starts its own Redis.",
)
its_redis = option(
    "--redis",
    metavar="URL",
    is_eager=True,
    callback=_redis,
    help=f"URL of Redis: {REDIS_URL}.  [default: the Redis of the instance]",
)
needed_redis: Decorator = option(
    "--redis", metavar="URL", required=True, callback=_redis, help=f"URL of Redis: {REDIS_URL}."
)
app_dir: Decorator = option(
    "--app-dir",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    default=".",
    help="Directory to import TARGET from.",
)
env_file: Decorator = option(
    "--env-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    is_eager=True,  # it may set what other options read
    callback=_env_file,
    help="File of NAME=VALUE lines to add to the environment; variables that are set already stay.",
)
target: Decorator = several(
    click.argument("target", envvar="ASGICTL_TARGET", default="asgictl.demo:app"), app_dir, env_file
)
silent_seconds: Decorator = option(
    "--silent-seconds",
    type=Number(2),
    default=SILENT_SECONDS,
    help="Kill a process that sends no heartbeat for this many seconds, as when it is stopped or C code holds the GIL.",
)
LIMITS = Limits()
log_format: Decorator = option(
    "--log-format", type=click.Choice(["human", "json"]), default="human", help="Log format."
)
passed_on: dict[str, Any] = {"metavar": "NAME=VALUE", "multiple": True, "type": Words(), "callback": _server_options}
of_interfaces: Decorator = several(
    option("--uvicorn-option", help="Setting for uvicorn, such as ssl_keyfile=key.pem. Repeatable.", **passed_on),
    option("--server", type=click.Choice(SERVERS), default="uvicorn", help="Server that accepts connections."),
    option(
        "--max-message-bytes",
        type=Whole(1),
        default=LIMITS.message_bytes,
        help="Largest WebSocket message. A larger one closes its WebSocket with 1009.",
    ),
    option(
        "--max-body-bytes",
        type=Whole(0),
        default=LIMITS.body_bytes,
        help="Largest request body. A larger one is answered 413.",
    ),
    option(
        "--limit",
        metavar="NAME=VALUE",
        multiple=True,
        type=Words(),
        callback=_limits,
        help="Change a limit for clients, such as header_bytes=65536; docs/reference/limits.md lists them. Repeatable.",
    ),
    option(
        "--capacity",
        type=Whole(1),
        default=LIMITS.channel_events,
        help="Most events that wait in a channel. Further requests are answered 503.",
    ),
    option(
        "--forwarded-allow-ips",
        default="127.0.0.1",
        help="Addresses of proxies whose X-Forwarded headers are trusted; * for any.",
    ),
    option(
        "--allowed-origins",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        callback=_origins,
        help="Origin whose pages may open WebSockets of consumers, such as https://*.example.com. Repeatable."
        "  [default: the same host]",
    ),
    option(
        "--root-path",
        default="",
        callback=_root_path,
        help="Path under which a proxy serves the application, such as /site.",
    ),
    option(
        "--affinity",
        type=click.Choice(AFFINITIES),
        default="connection",
        help="Send the requests of a keep-alive connection, or of a client address, to one worker of an ASGI"
        " application (split).",
    ),
    option("--access-log", is_flag=True, help="Log each request and WebSocket, without query strings."),
)
of_workers: Decorator = several(
    option(
        "--timeout",
        type=Number(0),
        default=60.0,
        help="Seconds that a handler may run before it is ended; 0 for no limit.",
    ),
    option(
        "--slow-seconds",
        type=Number(0),
        default=0.0,
        help="Log each event that takes longer than this many seconds, with a stack; 0 for none.",
    ),
    option(
        "--only-channels",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        help="Serve only channels that match this pattern. Repeatable.",
    ),
    option(
        "--exclude-channels",
        metavar="GLOB",
        multiple=True,
        type=Words(),
        help="Do not serve channels that match this pattern. Repeatable.",
    ),
    option(
        "--max-events", type=Whole(0), default=0, help="Replace a worker after about this many events; 0 for never."
    ),
    option(
        "--drain-seconds",
        type=Number(0),
        default=600.0,
        help="Seconds that a stopping worker keeps ASGI WebSockets and streams open; in-process at most 30.",
    ),
    option(
        "--max-memory-mib",
        type=Whole(0),
        default=0,
        help="Replace a worker that grows beyond this many MiB; 0 for never.",
    ),
)
drain_rate: Decorator = option(
    "--drain-rate",
    type=Number(0, min_open=True),
    default=DRAIN_RATE,
    help="WebSockets that a draining instance closes each second (1012); more if its deadline requires it.",
)
shutdown_delay: Decorator = option(
    "--shutdown-delay",
    type=Number(0),
    default=0.0,
    help="Seconds to keep serving after SIGTERM or `asgictl stop` while /readyz fails, so that load balancers leave.",
)
probe_port: Decorator = option(
    "--probe-port",
    metavar="[HOST:]PORT",
    default="",
    help="Serve /livez, /readyz and /metrics of this process at this address; without HOST, on 127.0.0.1.",
)
release: Decorator = click.option(
    "--release", default="", help="Name of the release.  [default: a hash of the site's own Python files]"
)
