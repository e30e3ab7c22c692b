"""The command line: parses, wires, and is the only place that exits the process."""

import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from asgictl import __version__
from asgictl.configuration import SERVERS, Bind, InstanceConfig, InterfaceConfig, Limits, WorkerConfig
from asgictl.errors import AsgictlError
from asgictl.logs import masked, set_up
from asgictl.readiness import Readiness
from asgictl.runtime import raise_file_limit
from asgictl.settings import Words, defaults, read_settings, source, told

DEFAULT_BIND = "127.0.0.1:8000"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
COUNTS = {"worker": click.IntRange(1, 64), "interface": click.IntRange(1, 16)}
TAIL_BYTES = 4 << 10  # of each log that `logs` begins with
FOLLOW_SECONDS = 0.2
STATUS_COLUMNS = 140  # of what is no terminal
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Commands(click.Group):
    """Turns an AsgictlError into its one clear message and its exit status (listed in asgictl.errors)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AsgictlError as error:
            click.echo(f"Error: {masked(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except click.BadParameter as error:
            if not (error.ctx and error.param and ctx.obj == source(error.ctx, error.param)):
                raise
            raise click.BadParameter(f"{ctx.obj}: {error.message}", error.ctx, error.param) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="asgictl %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Runs one Python web application split across interface servers and sync workers, or in-process.

    \b
    Exit status: 0 success · 1 a fault of asgictl's · 2 usage · 3 TARGET · 4 address · 5 Redis
                 6 already running · 7 not running · 8 a process did not become ready · 9 cannot be sent
                 10 no such background channel · 11 it is full
    """
    if "ASGICTL_RUN_DIR" in os.environ:  # `start` has told its processes what it read; the file may have changed
        return
    ctx.obj, settings = read_settings(Path.cwd(), start)
    ctx.default_map = defaults(main, settings)


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", value):
        raise click.BadParameter("1 to 32 letters, digits, - and _")
    return value


def option(*names: str, **settings: Any) -> Decorator:
    """An option that the environment can give too, as ASGICTL_ and its name."""
    return click.option(*names, envvar=_variable(names[-1]), show_envvar=True, show_default=True, **settings)


def _variable(name: str) -> str:
    return "ASGICTL_" + name.lstrip("-").replace("-", "_").upper()


def _text(value: Any) -> str:
    """Return a value as the environment gives it to click."""
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def _server_options(_ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check what is passed on, while it can still be said in which option."""
    if value:
        from asgictl.server_options import gunicorn_settings, uvicorn_options

        (uvicorn_options if param.name == "uvicorn_option" else gunicorn_settings)(value)
    return value


def _check_server(server: str, *passed_on: tuple[str, ...]) -> None:
    if server != "uvicorn" and any(passed_on):  # TLS that was asked for must not be lost
        raise click.UsageError(f"--uvicorn-option and --gunicorn-option mean nothing on --server={server}")


def options(*each: Decorator) -> Decorator:
    """Several options as one decorator, so that `start` takes what the roles that it starts take."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(each):
            command = decorator(command)
        return command

    return decorate


name_option = option(
    "--name", default="default", callback=_name, help="Tells instances apart, on a machine and in Redis."
)
threads_option = option("--threads", type=click.IntRange(1, 1024), help="Threads of each process that run sync code.")
redis_option = option("--redis", metavar="URL", help="redis://, rediss:// or unix://; without, one of its own runs.")
needed_redis_option = option("--redis", metavar="URL", required=True, help="redis://, rediss:// or unix://.")
target_argument = click.argument("target", envvar="ASGICTL_TARGET", default="asgictl.demo:app")
LIMITS = Limits()
log_format_option = option("--log-format", type=click.Choice(["human", "json"]), default="human", help="Of our logs.")
passed_on: dict[str, Any] = {"metavar": "NAME=VALUE", "multiple": True, "type": Words(), "callback": _server_options}
interface_options = options(
    option("--uvicorn-option", help="Passed on to uvicorn, as ssl_keyfile; may be repeated.", **passed_on),
    option(
        "--server", type=click.Choice(SERVERS), default="uvicorn", help="What accepts connections; docs/servers.md."
    ),
    option("--max-message-bytes", type=click.IntRange(1), default=LIMITS.message_bytes, help="Above: close 1009."),
    option("--max-body-bytes", type=click.IntRange(0), default=LIMITS.body_bytes, help="Of a request; above: 413."),
    option("--capacity", type=click.IntRange(1), default=LIMITS.channel_events, help="Events of a channel; then 503."),
    option("--forwarded-allow-ips", default="127.0.0.1", help="Proxies whose X-Forwarded headers count; * for any."),
    option("--root-path", default="", help="The path below which a proxy serves the application."),
    option("--access-log", is_flag=True, help="Log each request and WebSocket; never a query string."),
)
worker_options = options(
    option("--timeout", type=click.FloatRange(0), default=60.0, help="Seconds an event may run; 0 for ever."),
    option("--only-channels", metavar="GLOB", multiple=True, type=Words(), help="Serve these; may be repeated."),
    option("--exclude-channels", metavar="GLOB", multiple=True, type=Words(), help="Not these; may be repeated."),
    option("--max-events", type=click.IntRange(0), default=0, help="End after about as many, to be replaced."),
    option("--drain-seconds", type=click.FloatRange(0), default=600.0, help="Of a stopping worker's ASGI sockets."),
    option("--max-memory-mib", type=click.IntRange(0), default=0, help="End when it has grown to it, to be replaced."),
)
release_option = click.option("--release", default="", help="Names the code that runs.  [default: a hash of it]")


@main.command()
@target_argument
@option("--mode", type=click.Choice(["split", "inprocess"]), default="split", help="Where the application runs.")
@option("--bind", default=DEFAULT_BIND, help="host:port, or unix:/path (0600).")
@option("--interfaces", type=COUNTS["interface"], default=1, help="Interface servers (split).")
@option("--workers", type=COUNTS["worker"], default=CORES, help="Processes that run the application.")
@threads_option
@redis_option
@interface_options
@worker_options
@option("--gunicorn-option", help="Passed on to gunicorn (inprocess), as timeout; may be repeated.", **passed_on)
@log_format_option
@option("--log-file-mib", type=click.IntRange(0), default=50, help="Of each process, then a new file; ten are kept.")
@option("--start-seconds", type=click.FloatRange(1), default=60.0, help="That a role has to become ready.")
@release_option
@option("--admin-port", type=click.IntRange(1, 65535), help="Serve /metrics and the like on 127.0.0.1 too.")
@name_option
@click.option("-d", "--detach", is_flag=True, help="Return once ready, and leave it running.")
def start(
    target: str,
    mode: str,
    bind: str,
    interfaces: int,
    workers: int,
    threads: int | None,
    redis: str | None,
    start_seconds: float,
    release: str,
    server: str,
    admin_port: int | None,
    name: str,
    detach: bool,
    **roles: Any,
) -> None:
    """Start TARGET (module:attribute; the demo without one) and everything that it needs.

    TARGET is a WSGI or ASGI callable or an asgictl Application, alike in both modes. Threads default to 1 in
    split mode, where a worker is a process, and to what Python's thread pools default to in-process.
    """
    other = "interfaces" if mode == "inprocess" else "gunicorn_option"
    given = click.get_current_context().get_parameter_source(other)
    if given == ParameterSource.COMMANDLINE:  # a file or the environment may serve both modes
        raise click.UsageError(f"--{other.replace('_', '-')} means nothing in --mode={mode}")
    _check_server(server, roles["uvicorn_option"], roles["gunicorn_option"])
    if bind.startswith("fd:"):
        raise click.UsageError("--bind fd://N is for a process that runs alone; use host:port or unix:/path")
    config = InstanceConfig(
        name=name,
        mode=mode,
        target=target,
        bind=Bind(bind),
        workers=workers,
        threads=threads or (1 if mode == "split" else min(32, CORES + 4)),
        interfaces=interfaces,
        redis_url=redis,
        start_seconds=start_seconds,
        release=release,
        server=server,
        admin_port=admin_port,
        options={_variable(key): _text(value) for key, value in roles.items()},
    )
    from asgictl.instance import Instance
    from asgictl.slots import Interrupted
    from asgictl.status import status, summary

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stopping.set())
    instance = Instance(name, stopping)
    try:
        instance.start(config)
    except Interrupted:
        click.echo("stopped before it was ready", err=True)
        return
    if instance.orphans:
        click.echo(f"ended {instance.orphans} processes that a killed supervisord had left", err=True)
    click.echo(summary(status(name)))
    if detach:
        click.echo("asgictl status | stop")
        return
    click.echo("Ctrl-C drains and stops · asgictl status")
    logs = Logs(instance.run_dir / "log", as_json=roles["log_format"] == "json")
    while not stopping.wait(FOLLOW_SECONDS):
        logs.show()
        if instance.ended():  # `asgictl stop` elsewhere, or somebody killed it
            instance.clean()
            return
    click.echo("draining", err=True)
    instance.stop()


class Logs:
    """Shows on the terminal what processes of a role have logged since the last look, at first the last bytes."""

    def __init__(self, directory: Path, role: str = "", tail_bytes: int = 0, *, as_json: bool = False) -> None:
        self._logs = f"{role}*.log"
        self._directory = directory
        self._as_json = as_json
        self._shown = {log: max(log.stat().st_size - tail_bytes, 0) for log in directory.glob(self._logs)}

    def show(self) -> None:
        """Print what is new, whole lines only, each behind the name of its process."""
        for log in sorted(self._directory.glob(self._logs)):
            if log.stem == "supervisord":
                continue
            with log.open("rb") as file:
                shown = self._shown.get(log, 0)
                file.seek(shown if shown <= log.stat().st_size else 0)  # a log that was rotated begins anew
                lines, _, _ = file.read().rpartition(b"\n")
            if lines:
                self._shown[log] = shown + len(lines) + 1
                for line in lines.decode(errors="replace").splitlines():
                    if self._as_json:  # wrap what is none, such as Redis's lines and print()'s
                        click.echo(line if line.startswith("{") else json.dumps({"process": log.stem, "message": line}))
                    else:
                        click.echo(f"{log.stem} | {line}")


@main.command()
@name_option
def stop(name: str) -> None:
    """Drain and stop an instance."""
    from asgictl.instance import Instance

    Instance(name).stop()
    click.echo(f"stopped {name}")


@main.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Say how an instance is: its processes, connections, channels, and the requests and turns of the last seconds."""
    from asgictl import status

    found = status.status(name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    click.echo(status.summary(found))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else STATUS_COLUMNS)
    for table in status.tables(found):
        console.print()
        console.print(table)


@main.group("config")
def config_() -> None:
    """What `start` is told, and by whom."""


@config_.command("show", context_settings={"ignore_unknown_options": True})
@click.argument("flags", metavar="[FLAGS OF start]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def show_config(ctx: click.Context, flags: tuple[str, ...], as_json: bool) -> None:
    """Show what `start` would be told here, and whether by a flag, a variable, a file or its default."""
    found = told(start.make_context("start", list(flags), parent=ctx.find_root()))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for key, each in found.items():
        value = each["value"]
        text = "" if value is None else " ".join(value) if isinstance(value, list) else str(value)
        click.echo(f"{key:20} {text:24} {each['source']}")


@main.command()
@click.option("--interfaces", is_flag=True, help="Replace interface servers, one by one: closes sockets (1012).")
@release_option
@name_option
def reload(interfaces: bool, release: str, name: str) -> None:
    """Deploy: start processes with the code as it is now, and drain the old ones once all of the new are ready.

    Should the new not start, they are removed and the old go on. In split mode the sockets of consumers notice nothing.
    """
    from asgictl.instance import Instance

    instance = Instance(name)
    split = instance.described()["mode"] == "split"
    if interfaces and not split:
        raise click.UsageError("--interfaces means nothing in --mode=inprocess: there are none")
    role = "interface" if interfaces else "worker" if split else "server"
    _told(f"reloaded {role}s", instance.replace(role, release))


@main.command()
@click.argument("role", type=click.Choice(["worker", "interface", "server", "controller", "redis"]))
@name_option
def restart(role: str, name: str) -> None:
    """Replace the processes of a role by new ones, as reload does; Redis and the controller stop first."""
    from asgictl.instance import Instance

    _told(f"restarted {role}", Instance(name).replace(role))


@main.command()
@click.argument("counts", metavar="ROLE=N...", nargs=-1, required=True)
@name_option
@click.pass_context
def scale(ctx: click.Context, counts: tuple[str, ...], name: str) -> None:
    """Have so many processes of a role, such as worker=8 interface=2. Those that are too many drain."""
    from asgictl.instance import Instance

    wanted = []
    for each in counts:
        role, _, count = each.partition("=")
        if role not in COUNTS:
            raise click.UsageError(f"{each}: use worker=N, interface=N")
        wanted.append((role, int(COUNTS[role](count, ctx=ctx))))
    for role, number in wanted:
        _told(f"{role}: {number}", Instance(name).scale(role, number))


def _told(what: str, killed: int) -> None:
    click.echo(what + (f"; {killed} did not drain in time and were killed" if killed else ""))


@main.command()
@click.argument("role", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on.")
@name_option
def logs(role: str, follow: bool, name: str) -> None:
    """Show the last lines that the processes of a ROLE have logged, or those of all."""
    from asgictl.instance import Instance

    instance = Instance(name)
    as_json = instance.described()["options"].get("ASGICTL_LOG_FORMAT") == "json"
    shown = Logs(instance.run_dir / "log", role, TAIL_BYTES, as_json=as_json)
    shown.show()
    while follow:
        time.sleep(FOLLOW_SECONDS)
        shown.show()


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


@main.command()
@option("--bind", default=DEFAULT_BIND, help="host:port, unix:/path (0600), or fd://N for an inherited socket.")
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
    root_path: str,
    uvicorn_option: tuple[str, ...],
    access_log: bool,
    log_format: str,
) -> None:
    """Run one interface server in the foreground, as in a container."""
    from asgictl.interface.server import serve
    from asgictl.server_options import uvicorn_options

    _check_server(server, uvicorn_option)
    set_up(log_format, _process("interface"))
    readiness = _readiness("interface")
    limits = Limits(message_bytes=max_message_bytes, body_bytes=max_body_bytes, channel_events=capacity)
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


@main.command()
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


@main.group("dead-letters")
def dead_letters() -> None:
    """Events that were given up: their workers died of them, or they took too long."""


@dead_letters.command("list")
@redis_option
@name_option
def list_(redis: str | None, name: str) -> None:
    """List them, the oldest first."""
    for letter in _dead_letters(redis, name).all():
        click.echo(letter.line)


@dead_letters.command()
@click.argument("id")
@redis_option
@name_option
def show(id: str, redis: str | None, name: str) -> None:
    """Show one: what was asked, and what it carried."""
    click.echo(_dead_letters(redis, name).one(id).text)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@redis_option
@name_option
def purge(ids: tuple[str, ...], redis: str | None, name: str) -> None:
    """Delete these, or all."""
    click.echo(f"{_dead_letters(redis, name).purge(ids)} deleted")


def _dead_letters(redis_url: str | None, name: str) -> Any:
    from asgictl.dead_letters import DeadLetters
    from asgictl.instance import Instance

    return DeadLetters(redis_url or Instance(name).redis_url(), name)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@redis_option
@name_option
def requeue(ids: tuple[str, ...], redis: str | None, name: str) -> None:
    """Send these background messages to their channels again, or all."""
    click.echo(f"{_dead_letters(redis, name).requeue(ids)} sent again")


@main.command()
@click.option("--channel", metavar="NAME", help="A background channel; with --json.")
@click.option("--json", "content", metavar="OBJECT", help="What its consumer is called with.")
@click.option("--delay-seconds", type=float, default=0.0, help="How long it waits first.")
@click.option("--group", metavar="NAME", help="A group of WebSockets; with --text or --data-file.")
@click.option("--text", help="The frame for each.")
@click.option("--data-file", type=click.File("rb"), help="The same, binary; - for standard input.")
@redis_option
@name_option
def send(
    channel: str | None,
    content: str | None,
    delay_seconds: float,
    group: str | None,
    text: str | None,
    data_file: Any,
    redis: str | None,
    name: str,
) -> None:
    """Send a message to a background channel, or a frame to a group."""
    from asgictl.application import Channel, Group

    os.environ["ASGICTL_NAME"] = name
    if redis:
        os.environ["ASGICTL_REDIS"] = redis
    if (channel is None) == (group is None):
        raise click.UsageError("give either --channel and --json, or --group and --text or --data-file")
    if group is not None and content is None and delay_seconds == 0:
        Group(group).send(text=text, data=data_file and data_file.read())
    elif channel is not None and content is not None and text is None and data_file is None:
        try:
            parsed = json.loads(content)
        except ValueError as error:
            raise click.UsageError(f"--json is not JSON: {error}") from None
        Channel(channel).send(parsed, delay_seconds=delay_seconds)
    else:
        raise click.UsageError("--channel takes --json and --delay-seconds; --group takes --text or --data-file")


@main.command(hidden=True)
def controller() -> None:
    """Run the controller of the instance in ASGICTL_RUN_DIR; supervisord starts it."""
    import asyncio

    from asgictl.controller import Controller

    environment = os.environ
    set_up(environment.get("ASGICTL_LOG_FORMAT", "human"), "controller")
    redis_url, name = environment.get("ASGICTL_REDIS"), environment["ASGICTL_NAME"]
    port = int(environment.get("ASGICTL_ADMIN_PORT", 0)) or None
    asyncio.run(Controller(Path(environment["ASGICTL_RUN_DIR"]), redis_url, name, port).serve())


@main.command("server", hidden=True)
def server_() -> None:
    """Run one in-process server other than gunicorn's, on file descriptor 0; supervisord starts it."""
    from asgictl.inprocess import serve

    sys.exit(0 if serve() else 1)
