"""asgictl start, stop, config show."""

import json
import os
import signal
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from asgictl.cli import options
from asgictl.cli.help import Command
from asgictl.cli.operate import tell
from asgictl.cli.options import (
    CORES,
    COUNTS,
    DEFAULT_BIND,
    DEFAULT_WORKERS,
    Number,
    Whole,
    check_server,
    option,
    passed_on,
    text,
    variable,
)
from asgictl.cli.settings import SettingsError, Span, told
from asgictl.cli.status import show, width
from asgictl.config import Bind, InstanceConfig
from asgictl.control.log_tail import FOLLOW_SECONDS, Logs
from asgictl.control.status_page import summary
from asgictl.errors import AsgictlError
from asgictl.machine.processes import kill
from asgictl.machine.run_dir import instance_names, named
from asgictl.machine.signals import told_to_end
from asgictl.telemetry.logs import masked

SIGNALLED = 128  # and the signal's number: the exit status of what a signal ended, as shells have it
SHOWN_FILES = 5  # of those that a change has changed
DEVELOPMENT_DRAIN_SECONDS = 1  # where each edit is a deploy
NO_AFFINITY = "--affinity=client does not apply to --mode=inprocess, whose servers share one listening socket"
KILLED = "{} processes did not end in time and were killed"


@click.command(cls=Command)
@options.target
@option(
    "--mode",
    type=click.Choice(["split", "inprocess"]),
    default="split",
    help="Run the application in workers behind interfaces (split), or inside the server.",
)
@option("--bind", default=DEFAULT_BIND, help="Address to listen on: host:port, [IPv6]:port or unix:/path (0600).")
@option("--interfaces", type=COUNTS["interface"], default=1, help="Number of interfaces (split).")
@option(
    "--workers",
    type=Span(COUNTS["worker"]),
    default=DEFAULT_WORKERS,
    help="Number of workers, or a range such as 2..8 within which it follows the load (split).",
)
@options.threads
@options.redis
@options.of_interfaces
@options.of_workers
@options.drain_rate
@options.shutdown_delay
@options.silent_seconds
@option("--gunicorn-option", help="Setting for gunicorn, such as timeout=60 (in-process). Repeatable.", **passed_on)
@options.log_format
@option(
    "--log-file-mib",
    type=Whole(0),
    default=50,
    help="Rotate each log file at this many MiB, and keep ten old ones; 0 for never.",
)
@option("--start-seconds", type=Number(1), default=60.0, help="Seconds to wait for each role to become ready.")
@options.release
@option(
    "--admin-port", type=Whole(1, 65535), help="Also serve /metrics, /status and the probes on this port of 127.0.0.1."
)
@options.name
@click.option(
    "--reload",
    "watches",
    is_flag=True,
    help="Deploy whenever a Python file changes, for development; a drain takes at most 1 s.",
)
@click.option("-d", "--detach", is_flag=True, help="Return once the instance is ready, and leave it running.")
def start(
    mode: str, bind: str, redis: str | None, threads: int | None, watches: bool, detach: bool, **given: Any
) -> None:
    """Start an instance that serves TARGET.

    TARGET is module:attribute: a WSGI or ASGI callable, an asgictl Application, or a factory of one, such as
    app:create_app or 'app:create_app("production")'. Without TARGET the demo is served.
    """
    del given["env_file"]  # it has been read
    given["workers"], given["autoscale"] = _workers(given["workers"], mode)
    other = "interfaces" if mode == "inprocess" else "gunicorn_option"
    source = click.get_current_context().get_parameter_source(other)
    if source == ParameterSource.COMMANDLINE:  # a file or the environment may serve both modes
        raise click.UsageError(f"--{other.replace('_', '-')} does not apply to --mode={mode}")
    if mode == "inprocess" and given["affinity"] == "client" and given["workers"] > 1:
        _refuse_affinity()
    check_server(given["server"], given["uvicorn_option"], given["gunicorn_option"])
    if watches and detach:
        raise click.UsageError("--reload works in the foreground only: leave out -d")
    if bind.startswith("fd:"):
        raise click.UsageError("--bind fd://N is for a process that runs alone; use host:port or unix:/path")
    drains = click.get_current_context().get_parameter_source("drain_seconds")
    if watches and drains == ParameterSource.DEFAULT:
        given["drain_seconds"] = DEVELOPMENT_DRAIN_SECONDS
    threads = threads or default_threads(mode)
    ours = {each.name: given.pop(each.name) for each in fields(InstanceConfig) if each.name in given}
    roles = {variable(key): text(value) for key, value in given.items()}
    _run(
        InstanceConfig(mode=mode, bind=Bind(bind), redis_url=redis, threads=threads, options=roles, **ours),
        detach,
        watches,
    )


def default_threads(mode: str) -> int:
    """Return the threads of a process without --threads: one in a worker, Python's default for pools in-process."""
    return 1 if mode == "split" else min(32, CORES + 4)


def _workers(given: int | str, mode: str) -> tuple[int, tuple[int, int] | None]:
    """Return the first number of workers, and its range; None if the number is fixed."""
    least, _, most = str(given).partition("..")
    if most and mode == "inprocess":
        raise click.UsageError(
            "--workers N..M does not apply to --mode=inprocess: gunicorn's number of workers is fixed"
        )
    return int(least), (int(least), int(most)) if most else None


def _refuse_affinity() -> None:
    """Refuse what was asked for here; a file or the environment, which may serve both modes, is warned of."""
    given = click.get_current_context().get_parameter_source("affinity")
    if given == ParameterSource.COMMANDLINE:
        raise click.UsageError(f"{NO_AFFINITY}: --mode=split has it, or --workers=1")
    click.echo(f"warning: {NO_AFFINITY}; a connection stays with its server", err=True)


def _run(config: InstanceConfig, detach: bool, watches: bool) -> None:
    stopping = told_to_end()
    from asgictl.control.deploys import Deploys
    from asgictl.control.instance import Instance
    from asgictl.control.slots import Interrupted
    from asgictl.control.status import status

    instance = Instance(config.name, stopping)
    stopping.again = lambda: _force(instance.run_dir.path)
    # What a process logs before it is ready is shown too, once all are.
    shown = Logs(instance.run_dir.path / "log", as_json=config.options["ASGICTL_LOG_FORMAT"] == "json")
    try:
        _heed_gunicorn(config, stopping)
        instance.start(config)
    except Interrupted:
        click.echo("stopped before it was ready", err=True)
        click.get_current_context().exit(SIGNALLED + stopping.number)
    if instance.orphans:
        click.echo(f"ended {instance.orphans} processes that a killed supervisord had left", err=True)
    show(summary(status(config.name), width()))
    if detach:
        click.echo(f"asgictl status{named(config.name)} | stop{named(config.name)}")
        return
    click.echo(f"Ctrl-C drains and stops · asgictl status{named(config.name)}")
    if watches:
        role = "worker" if config.mode == "split" else "server"
        watched = Deploys(config.name, stopping), role, config.options["ASGICTL_APP_DIR"], stopping
        threading.Thread(target=_watch, args=watched, name="watch").start()
    while not stopping.wait(FOLLOW_SECONDS):
        shown.show()
        if instance.ended():  # `asgictl stop` elsewhere, or somebody killed it
            stopping.set()
            instance.conclude()
            return
    click.echo("draining; press Ctrl-C again to kill the processes that are left", err=True)
    if killed := instance.stop(delays=stopping.number != signal.SIGINT):
        click.echo(KILLED.format(killed), err=True)


def _heed_gunicorn(config: InstanceConfig, stopping: threading.Event) -> None:
    """Refuse mistakes in gunicorn's own file and variable where a server reads them; warn where none does."""
    from asgictl.control.preflight import GUNICORN_FILE, check_gunicorn

    found = [GUNICORN_FILE] if Path(GUNICORN_FILE).exists() else []
    found += ["GUNICORN_CMD_ARGS"] if os.environ.get("GUNICORN_CMD_ARGS") else []
    if config.mode == "split" or config.server != "uvicorn":
        where = "in split mode" if config.mode == "split" else f"with --server={config.server}"
        for each in found:
            click.echo(f"warning: {each} is not read {where}", err=True)
    elif found and (mistakes := check_gunicorn({**os.environ}, config.start_seconds, stopping)):
        raise SettingsError(mistakes)


def _force(run_dir: Path) -> None:
    """Kill all processes at once, those that drain included. The waiting `start` cleans up."""
    from asgictl.control.remains import Remains

    click.echo("killing the processes that are left", err=True)
    kill(Remains(run_dir).processes)


def _watch(deploys: Any, role: str, app_dir: str, stopping: threading.Event) -> None:
    """Deploy each change until stopped; if the new code does not start, the old goes on."""
    from watchfiles import PythonFilter, watch

    from asgictl.control.slots import Interrupted

    watched = ["."] if Path(app_dir).is_relative_to(Path.cwd()) else [".", app_dir]
    for changes in watch(*watched, watch_filter=PythonFilter(), stop_event=stopping):
        tell(f"changed: {', '.join(sorted({os.path.relpath(path) for _, path in changes})[:SHOWN_FILES])}")
        try:
            deploys.replace(role, tell=tell)
            tell(f"reloaded {role}s")
        except AsgictlError as error:
            tell(f"Error: {masked(str(error))}")
        except Interrupted:
            return


@click.command()
@click.option("--all", "every", is_flag=True, is_eager=True, help="Stop every instance that runs here.")
@options.running
@click.pass_context
def stop(ctx: click.Context, every: bool, name: str) -> None:
    """Drain and stop an instance."""
    if every and ctx.get_parameter_source("name") == ParameterSource.COMMANDLINE:
        raise click.UsageError("give --name or --all")
    failed = 0
    for each in instance_names() if every else [name]:
        try:
            _stop(each)
        except AsgictlError as error:
            if not every:
                raise
            failed = error.exit_code  # the others are to stop all the same
            tell(f"Error: {masked(str(error))}")
    ctx.exit(failed)


def _stop(name: str) -> None:
    from asgictl.control.instance import Instance

    if killed := Instance(name).stop():
        click.echo(KILLED.format(killed), err=True)
    click.echo(f"stopped {name}")


@click.group("config")
def config() -> None:
    """Show the settings of `start`."""


@config.command("show", context_settings={"ignore_unknown_options": True})
@click.argument("flags", metavar="[FLAGS OF start]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show_config(ctx: click.Context, flags: tuple[str, ...], as_json: bool) -> None:
    """Show each setting of `start` and its source.

    The source is a flag, a variable, a file or the default.
    """
    found = told(start.make_context("start", list(flags), parent=ctx.find_root()))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for key, each in found.items():
        value = each["value"]
        text = "" if value is None else " ".join(value) if isinstance(value, list) else str(value)
        click.echo(f"{key:20} {text:24} {each['source']}")
