"""asgictl reload, restart, scale, logs and stacks."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import datetime
from operator import methodcaller
from typing import TYPE_CHECKING

import click

from asgictl.cli import options
from asgictl.cli.options import COUNTS
from asgictl.control.log_tail import FOLLOW_SECONDS, Logs
from asgictl.machine.signals import told_to_end

if TYPE_CHECKING:
    from asgictl.control.deploys import Cost, Deploys

SHOWN_LINES = 100
LEVELS = ("debug", "info", "warning", "error", "critical")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


waits: options.Decorator = click.option(
    "--wait", "waits", is_flag=True, help="Return only once the old processes have drained."
)


@click.command()
@click.option("--interfaces", is_flag=True, help="Replace interfaces one by one; each hands its WebSockets over.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Replace all processes except supervisord and Redis, as after pip install -U asgictl.",
)
@options.release
@waits
@options.running
def reload(interfaces: bool, everything: bool, release: str, waits: bool, name: str) -> None:
    """Deploy the current code.

    New processes start, and the old ones drain once all new ones are ready. The command returns once the new ones
    serve; asgictl status shows those that still drain. If the new ones do not start, they are removed and the old ones
    go on. In split mode the WebSockets of consumers stay open; in-process all WebSockets close (1012).
    """
    from asgictl.control.instance import Instance

    if everything:
        _change(name, "reloaded everything", methodcaller("replace_all", release, tell, waits=waits))
        return
    split = Instance(name).described()["mode"] == "split"
    if interfaces and not split:
        raise click.UsageError("--interfaces does not apply to --mode=inprocess, which has no interfaces")
    if interfaces and release:
        raise click.UsageError("--release does not apply to --interfaces, which run none of your code")
    role = "interface" if interfaces else "worker" if split else "server"
    _change(name, f"reloaded {role}s", methodcaller("replace", role, release, tell, waits=waits))


@click.command()
@click.argument("role", type=click.Choice(["worker", "interface", "server", "controller", "redis"]))
@waits
@options.running
def restart(role: str, waits: bool, name: str) -> None:
    """Replace the processes of a role with new ones.

    The new ones start before the old ones drain, as with reload; only Redis and the controller stop first.
    """
    _change(name, f"restarted {role}", methodcaller("replace", role, None, tell, waits=waits))


@click.command()
@click.argument("counts", metavar="ROLE=N...", nargs=-1, required=True)
@waits
@options.running
@click.pass_context
def scale(ctx: click.Context, counts: tuple[str, ...], waits: bool, name: str) -> None:
    """Set the number of processes of a role.

    For example: asgictl scale worker=8 interface=2. Processes in excess drain; interfaces hand their WebSockets over
    to those that stay.
    """
    wanted = []
    for each in counts:
        role, _, count = each.partition("=")
        if role not in COUNTS or not count:
            raise click.UsageError(f"{each}: use worker=N, interface=N")
        wanted.append((role, int(COUNTS[role](count, ctx=ctx))))
    for role, number in wanted:
        _change(name, f"{role}: {number}", methodcaller("scale", role, number, tell, waits=waits))


def tell(step: str) -> None:
    """Show a step of a change as it happens."""
    click.echo(step, err=True)


def _change(name: str, done: str, change: Callable[["Deploys"], "Cost"]) -> None:
    """Make a change, and print what was done and what it cost; SIGINT or SIGTERM interrupts it."""
    from asgictl.control.deploys import Deploys
    from asgictl.control.slots import Interrupted

    ending = told_to_end()
    try:
        cost = change(Deploys(name, ending))
    except Interrupted:
        raise click.ClickException(
            "interrupted before all processes were ready: those that had started are stopped"
        ) from None
    sockets = "WebSocket was" if cost.closed == 1 else "WebSockets were"
    closed = f"; {cost.closed} {sockets} closed with 1012" if cost.closed else ""
    killed = f"; {cost.killed} processes did not drain in time and were killed" if cost.killed else ""
    click.echo(done + closed + killed)
    if ending.is_set():
        tell("the old processes go on draining: asgictl status shows them")


def _since(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    """Return the epoch seconds of a time given as 90s, 10m, 2h, 1d (ago) or as in logs."""
    try:
        if value and value[-1] in UNITS:
            ago = options.Number(0).convert(value[:-1], param, ctx)
            return time.time() - ago * UNITS[value[-1]]
        return datetime.fromisoformat(value).timestamp() if value else 0.0
    except (ValueError, OverflowError, click.BadParameter):  # a year 1 has no timestamp
        raise click.BadParameter(f"{value}: use 90s, 10m, 2h, 1d, or '2026-01-31 17:00'") from None


@click.command()
@click.argument("role", default="")
@click.option("-n", "--lines", type=options.Whole(0), help="Number of lines to show.  [default: 100; with --since all]")
@click.option("--since", metavar="TIME", callback=_since, help="Show lines since then: 10m, 2h, '2026-01-31 17:00'.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    show_default=True,
    help="Show lines of this level or above.",
)
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines.")
@click.option("--files", is_flag=True, help="Show the paths of the log files instead.")
@options.running
def logs(role: str, lines: int | None, since: float, level: str, follow: bool, files: bool, name: str) -> None:
    """Show the logs of processes, ordered by time.

    ROLE is a role or one process; without it, all logs are shown. They include processes' ends, as supervisord logs
    them, and Redis's warnings; --files names the whole logs of both.
    """
    from asgictl.control.instance import Instance

    instance = Instance(name)
    as_json = instance.described()["options"].get("ASGICTL_LOG_FORMAT") == "json"
    shown = Logs(instance.run_dir.path / "log", role, logging.getLevelNamesMapping()[level.upper()], as_json=as_json)
    if not shown.files():
        raise click.UsageError(f"process {role} has no log; there are logs of {', '.join(shown.roles())}")
    if files:
        click.echo("\n".join(map(str, shown.files())))
        return
    shown.show_last(lines if lines is not None else sys.maxsize if since else SHOWN_LINES, since)
    while follow:
        time.sleep(FOLLOW_SECONDS)
        shown.show()


@click.command()
@click.argument("process", default="")
@options.running
def stacks(process: str, name: str) -> None:
    """Show the current stack of each thread.

    PROCESS is a role or one process; without it, all processes are shown. The stacks are logged too. They can be had
    while C code holds the GIL; py-spy, where it is installed and permitted, names the thread that holds it.
    """
    from asgictl.control.stacks import Process, stacks
    from asgictl.control.status import status
    from asgictl.machine.run_dir import RunDir, has_own_redis

    run_dir = RunDir.of(name)
    found = [each for each in status(name)["processes"] if each["process"].startswith(process)]
    asked = [Process(each["process"], each["role"], each["pid"]) for each in found]
    redis_url = run_dir.redis_url if has_own_redis(run_dir.path) else None
    texts = list(stacks(run_dir.path, redis_url, asked))
    if not texts:
        raise click.UsageError(f"no process {process} runs Python; asgictl status lists the processes")
    click.echo("\n\n".join(texts))
