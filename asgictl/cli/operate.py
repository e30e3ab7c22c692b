"""What an operator does with an instance that runs: status, reload, restart, scale, logs."""

import json
import sys
import time
from collections.abc import Callable
from operator import methodcaller
from typing import TYPE_CHECKING

import click

from asgictl.cli import options
from asgictl.cli.options import COUNTS
from asgictl.control.log_tail import FOLLOW_SECONDS, TAIL_BYTES, Logs
from asgictl.machine.signals import told_to_end

if TYPE_CHECKING:
    from asgictl.control.instance import Cost, Instance

STATUS_WIDTH = 140  # of what is no terminal


@click.command()
@options.name
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Say how an instance is: its processes, connections, channels, and the requests and turns of the last seconds."""
    from asgictl.control import status

    found = status.status(name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    click.echo(status.summary(found))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else STATUS_WIDTH)
    for table in status.tables(found):
        console.print()
        console.print(table)


@click.command()
@click.option("--interfaces", is_flag=True, help="Replace interface servers, one by one: closes sockets (1012).")
@options.release
@options.name
def reload(interfaces: bool, release: str, name: str) -> None:
    """Deploy: start processes with the code as it is now, and drain the old ones once all of the new are ready.

    Should the new not start, they are removed and the old go on. In split mode the sockets of consumers notice nothing.
    """
    from asgictl.control.instance import Instance

    split = Instance(name).described()["mode"] == "split"
    if interfaces and not split:
        raise click.UsageError("--interfaces means nothing in --mode=inprocess: there are none")
    role = "interface" if interfaces else "worker" if split else "server"
    _change(name, f"reloaded {role}s", methodcaller("replace", role, release))


@click.command()
@click.argument("role", type=click.Choice(["worker", "interface", "server", "controller", "redis"]))
@options.name
def restart(role: str, name: str) -> None:
    """Replace the processes of a role by new ones, as reload does; Redis and the controller stop first."""
    _change(name, f"restarted {role}", methodcaller("replace", role))


@click.command()
@click.argument("counts", metavar="ROLE=N...", nargs=-1, required=True)
@options.name
@click.pass_context
def scale(ctx: click.Context, counts: tuple[str, ...], name: str) -> None:
    """Have so many processes of a role, such as worker=8 interface=2. Those that are too many drain."""
    wanted = []
    for each in counts:
        role, _, count = each.partition("=")
        if role not in COUNTS or not count:
            raise click.UsageError(f"{each}: use worker=N, interface=N")
        wanted.append((role, int(COUNTS[role](count, ctx=ctx))))
    for role, number in wanted:
        _change(name, f"{role}: {number}", methodcaller("scale", role, number))


def _change(name: str, done: str, change: Callable[["Instance"], "Cost"]) -> None:
    """Make a change, and say what was done and what it cost; what asks this command to end asks it to give up."""
    from asgictl.control.instance import Instance
    from asgictl.control.slots import Interrupted

    try:
        cost = change(Instance(name, told_to_end()))
    except Interrupted:
        raise click.ClickException("given up before all was ready: what had started stops, the old go on") from None
    closed = f"; {cost.closed} WebSockets were closed with 1012" if cost.closed else ""
    killed = f"; {cost.killed} processes did not drain in time and were killed" if cost.killed else ""
    click.echo(done + closed + killed)


@click.command()
@click.argument("role", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on.")
@options.name
def logs(role: str, follow: bool, name: str) -> None:
    """Show the last lines that the processes of a ROLE have logged, or those of all."""
    from asgictl.control.instance import Instance

    instance = Instance(name)
    as_json = instance.described()["options"].get("ASGICTL_LOG_FORMAT") == "json"
    directory = instance.run_dir.path / "log"
    if not any(directory.glob(f"{role}*.log")):
        raise click.UsageError(f"no process {role} has a log; asgictl status names them")
    shown = Logs(directory, role, TAIL_BYTES, as_json=as_json)
    shown.show()
    while follow:
        time.sleep(FOLLOW_SECONDS)
        shown.show()
