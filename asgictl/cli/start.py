"""asgictl start, stop, config show."""

import json
import threading
from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from asgictl.cli import options
from asgictl.cli.options import CORES, COUNTS, DEFAULT_BIND, check_server, option, passed_on, text, variable
from asgictl.cli.settings import told
from asgictl.config import Bind, InstanceConfig
from asgictl.control.log_tail import FOLLOW_SECONDS, Logs
from asgictl.errors import AsgictlError
from asgictl.machine.signals import told_to_end
from asgictl.telemetry.logs import masked

SIGNALLED = 128  # and the signal's number: the exit status of what a signal ended, as shells have it
KILLED = "{} processes did not end in time and were killed"


@click.command()
@options.target
@option("--mode", type=click.Choice(["split", "inprocess"]), default="split", help="Where the application runs.")
@option("--bind", default=DEFAULT_BIND, help="host:port, [IPv6]:port, or unix:/path (0600).")
@option("--interfaces", type=COUNTS["interface"], default=1, help="Interface servers (split).")
@option("--workers", type=COUNTS["worker"], default=CORES, help="Processes that run the application.")
@options.threads
@options.redis
@options.of_interfaces
@options.of_workers
@options.silent_seconds
@option("--gunicorn-option", help="Passed on to gunicorn (inprocess), as timeout; may be repeated.", **passed_on)
@options.log_format
@option("--log-file-mib", type=click.IntRange(0), default=50, help="Of each process, then a new file; ten are kept.")
@option("--start-seconds", type=click.FloatRange(1), default=60.0, help="That a role has to become ready.")
@options.release
@option("--admin-port", type=click.IntRange(1, 65535), help="Serve /metrics and the like on 127.0.0.1 too.")
@options.name
@click.option("--reload", "watches", is_flag=True, help="For development: deploy whenever a Python file changes.")
@click.option("-d", "--detach", is_flag=True, help="Return once ready, and leave it running.")
def start(
    mode: str, bind: str, redis: str | None, threads: int | None, watches: bool, detach: bool, **given: Any
) -> None:
    """Start TARGET (module:attribute; the demo without one) and everything that it needs.

    TARGET is a WSGI or ASGI callable or an asgictl Application, alike in both modes. Threads default to 1 in
    split mode, where a worker is a process, and to what Python's thread pools default to in-process.
    """
    other = "interfaces" if mode == "inprocess" else "gunicorn_option"
    source = click.get_current_context().get_parameter_source(other)
    if source == ParameterSource.COMMANDLINE:  # a file or the environment may serve both modes
        raise click.UsageError(f"--{other.replace('_', '-')} means nothing in --mode={mode}")
    check_server(given["server"], given["uvicorn_option"], given["gunicorn_option"])
    if watches and detach:
        raise click.UsageError("--reload watches files from the foreground: leave -d away")
    if bind.startswith("fd:"):
        raise click.UsageError("--bind fd://N is for a process that runs alone; use host:port or unix:/path")
    threads = threads or (1 if mode == "split" else min(32, CORES + 4))
    ours = {each.name: given.pop(each.name) for each in fields(InstanceConfig) if each.name in given}
    roles = {variable(key): text(value) for key, value in given.items()}
    _run(
        InstanceConfig(mode=mode, bind=Bind(bind), redis_url=redis, threads=threads, options=roles, **ours),
        detach,
        watches,
    )


def _run(config: InstanceConfig, detach: bool, watches: bool) -> None:
    stopping = told_to_end()
    from asgictl.control.instance import Instance
    from asgictl.control.slots import Interrupted
    from asgictl.control.status import status, summary

    instance = Instance(config.name, stopping)
    try:
        instance.start(config)
    except Interrupted:
        click.echo("stopped before it was ready", err=True)
        click.get_current_context().exit(SIGNALLED + stopping.number)
    if instance.orphans:
        click.echo(f"ended {instance.orphans} processes that a killed supervisord had left", err=True)
    click.echo(summary(status(config.name)))
    if detach:
        click.echo("asgictl status | stop")
        return
    click.echo("Ctrl-C drains and stops · asgictl status")
    if watches:
        role = "worker" if config.mode == "split" else "server"
        threading.Thread(target=_watch, args=(Instance(config.name, stopping), role, stopping), name="watch").start()
    shown = Logs(instance.run_dir.path / "log", as_json=config.options["ASGICTL_LOG_FORMAT"] == "json")
    while not stopping.wait(FOLLOW_SECONDS):
        shown.show()
        if instance.ended():  # `asgictl stop` elsewhere, or somebody killed it
            stopping.set()
            instance.conclude()
            return
    click.echo("draining", err=True)
    if killed := instance.stop():
        click.echo(KILLED.format(killed), err=True)


def _watch(instance: Any, role: str, stopping: threading.Event) -> None:
    """Deploy on each change, until it is to stop; a change that does not start leaves what runs."""
    from watchfiles import PythonFilter, watch

    from asgictl.control.slots import Interrupted

    for _ in watch(".", watch_filter=PythonFilter(), stop_event=stopping):
        try:
            instance.replace(role)
            click.echo(f"reloaded {role}s", err=True)
        except AsgictlError as error:
            click.echo(f"Error: {masked(str(error))}", err=True)
        except Interrupted:
            return


@click.command()
@options.name
def stop(name: str) -> None:
    """Drain and stop an instance."""
    from asgictl.control.instance import Instance

    if killed := Instance(name).stop():
        click.echo(KILLED.format(killed), err=True)
    click.echo(f"stopped {name}")


@click.group("config")
def config() -> None:
    """What `start` is told, and by whom."""


@config.command("show", context_settings={"ignore_unknown_options": True})
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
