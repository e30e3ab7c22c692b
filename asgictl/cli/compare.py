"""asgictl compare."""

import os
from pathlib import Path
from typing import Any

import click

from asgictl.cli import options
from asgictl.cli.options import COUNTS, Number, Whole, option
from asgictl.loadtests.scenarios import EVENTS, MOST_ROUNDS, SCENARIOS
from asgictl.machine.signals import told_to_end


@click.command()
@options.target
@click.option("--split", metavar="TARGET", help="TARGET of split mode, where it differs.")
@click.option("--inprocess", metavar="TARGET", help="TARGET of in-process mode, where it differs.")
@click.option(
    "--control", metavar="TARGET", help="TARGET of a third side, run in-process, such as the WSGI form of the site."
)
@click.option(
    "-f", "--locustfile", metavar="FILE", help="Locustfile with users of your own, to run instead of the scenarios."
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(tuple(SCENARIOS)),
    metavar="NAME",
    help=f"Scenario to run: {', '.join(SCENARIOS)}. Repeatable.",
)
@click.option(
    "--curve",
    type=click.Choice(tuple(SCENARIOS)),
    metavar="NAME",
    help="Scenario whose load rises until p99 passes --p99-ms.",
)
@click.option(
    "--p99-ms", type=Number(1), default=100.0, show_default=True, help="Milliseconds of p99 at which --curve ends."
)
@click.option(
    "--sweep", is_flag=True, help="Also compare blocking and django-mixed with the best --threads of each side."
)
@click.option(
    "--users", type=Whole(1, 100_000), help="Number of users at a time.  [default: 32; 40 or 1000 in some scenarios]"
)
@click.option("--rate", type=Number(0.1), help="Requests or messages each second.  [default: as many as possible]")
@click.option(
    "--events", type=Whole(1000), default=EVENTS, show_default=True, help="Number of events of the scenario leak."
)
@click.option("--duration", type=Number(2, 3600), default=6.0, show_default=True, help="Seconds of each run.")
@click.option(
    "--rounds",
    type=Whole(1, MOST_ROUNDS),
    default=MOST_ROUNDS,
    show_default=True,
    help="Most runs of each side; fewer if a scenario is decided earlier.",
)
@click.option(
    "--minutes", type=Number(0.1), default=15.0, show_default=True, help="Minutes after which no further round begins."
)
@click.option("--path", metavar="/...", help="Path of the HTTP requests.")
@click.option("--ws-path", metavar="/...", help="Path of the WebSockets; its consumer must echo text.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="asgictl-compare",
    show_default=True,
    help="Directory for the report.",
)
@click.option(
    "--also", metavar="COMMAND", help="Command of a third side, such as '[NAME=]gunicorn mysite.wsgi -b {bind}'."
)
@click.option(
    "--also-reload",
    metavar="COMMAND",
    help="Command that redeploys the third side, such as 'kill -USR2 {pid}'.  [default: SIGHUP]",
)
@click.option(
    "--again",
    is_flag=True,
    help="Measure split mode a second time as a further side, to see differences by chance (A/A).",
)
@option(
    "--workers", type=Whole(1, 63), help="Number of workers of split mode; in-process has as many more as --interfaces."
)
@option("--interfaces", type=COUNTS["interface"], default=1, help="Number of interfaces of split mode.")
@option(
    "--threads",
    type=Whole(1, 1024),
    help="Threads of each process for sync code.  [default: both modes have as many in all]",
)
def compare(target: str, app_dir: str, env_file: str | None, **asked: Any) -> None:
    """Measure TARGET in both modes and compare them.

    Without TARGET the demo is measured. Writes report.html and report.json. Takes 15 minutes for all scenarios. Needs
    pip install 'asgictl[compare]'.
    """
    from asgictl.loadtests import command

    os.environ["ASGICTL_APP_DIR"] = app_dir  # for what it starts
    command.compare(command.CompareConfig(target, **asked), told_to_end())
