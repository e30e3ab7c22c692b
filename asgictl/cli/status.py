"""asgictl status and ps."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from asgictl.cli import options
from asgictl.cli.options import option
from asgictl.control.status_page import HEADING, WRONG, Line, page, span
from asgictl.control.table import Column, table
from asgictl.errors import NEEDS_ATTENTION_STATUS, AsgictlError
from asgictl.machine.run_dir import RunDir, instance_names

if TYPE_CHECKING:
    from asgictl.control.status_schema import Status

WATCH_SECONDS = 1.0  # processes report each second
WIDTH = 200  # of what is no terminal
STYLES: dict[str, dict[str, Any]] = {WRONG: {"fg": "red", "bold": True}, HEADING: {"bold": True}}
WELL = "well"
INSTANCES = (
    *(Column("instance", is_text=True), Column("state", is_text=True), Column("supervisord"), Column("up", 2)),
    *(Column("workers", 3), Column("mode", 1, is_text=True), Column("serves", is_text=True)),
)
HOME = "\x1b[H\x1b[J"  # of a terminal: begin anew


def _elsewhere(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a URL given as a flag; one from the environment or a file only if no instance runs here."""
    is_flag = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    return value if is_flag or not instance_names() else None


def _asked(redis: str | None, name: str) -> "Status":
    if redis:
        from asgictl.control.hosts import status_of

        return status_of(redis, name)
    from asgictl.control.status import status

    return status(name)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON; docs/status.schema.json describes it.")
@click.option("--check", "checks", is_flag=True, help="Show only warnings, and exit with status 15 if there are any.")
@click.option("--watch", "watches", is_flag=True, help="Refresh each second, until Ctrl-C.")
@option(
    "--redis",
    metavar="URL",
    is_eager=True,
    callback=_elsewhere,
    help="Show the processes of all hosts that share this Redis.  [default: ASGICTL_REDIS, if no instance runs here]",
)
@options.running
@click.pass_context
def status(ctx: click.Context, as_json: bool, checks: bool, watches: bool, redis: str | None, name: str) -> None:
    """Show the state of an instance.

    Warnings come first, then processes, channels, and the requests and turns of the last ten seconds.
    """
    if as_json + checks + watches > 1:
        raise click.UsageError("give one of --json, --check, --watch")
    found = _asked(redis, name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif checks:
        click.echo("\n".join(found["warnings"]) or "ok")
        ctx.exit(NEEDS_ATTENTION_STATUS if found["warnings"] else 0)
    else:
        show(page(found, width()))
    while watches:
        time.sleep(WATCH_SECONDS)
        lines = page(_asked(redis, name), width())
        click.echo(HOME if sys.stdout.isatty() else "", nl=not sys.stdout.isatty())
        show(lines)


@click.command()
def ps() -> None:
    """List the instances that run here.

    An instance belongs to one user and one XDG_RUNTIME_DIR.
    """
    rows = [_row(name) for name in instance_names()]
    if not rows:
        click.echo("no instance is running here; start one with asgictl start")
        return
    heading, *lines = table(INSTANCES, rows, width())
    styles = ["" if row[1] == WELL else WRONG for row in rows]
    show([Line(heading, HEADING), *map(Line, lines, styles)])


def _row(name: str) -> tuple[object, ...]:
    from asgictl.control.status import status
    from asgictl.control.supervisord_client import Supervisor

    try:
        found = status(name)
        pid = Supervisor(RunDir.of(name).path).pid()
    except AsgictlError as error:
        return (name, "not running", "", "", "", "", str(error))
    oldest = max((each["uptime_seconds"] or 0.0 for each in found["processes"]), default=0.0)
    state = f"{len(found['warnings'])} need attention" if found["warnings"] else WELL
    return (name, state, pid, span(oldest), found["workers"], found["mode"], f"{found['target']} {found['url']}")


def width() -> int:
    """Return the width of the output: COLUMNS, else the terminal's."""
    return shutil.get_terminal_size((WIDTH, 0)).columns


def show(lines: Iterable[Line]) -> None:
    """Print lines, in colour on a terminal unless NO_COLOR is set (no-color.org)."""
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown = [click.style(line.text, **STYLES[line.style]) if line.style else line.text for line in lines]
    click.echo("\n".join(shown), color=color)
