"""asgictl compare."""

from pathlib import Path
from typing import Any

import click

from asgictl.cli import options
from asgictl.cli.options import COUNTS, option
from asgictl.loadtests.scenarios import MOST_ROUNDS, SCENARIOS
from asgictl.machine.signals import told_to_end


@click.command()
@options.target
@click.option("-f", "--locustfile", metavar="FILE", help="Users of your own, instead of the scenarios.")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(tuple(SCENARIOS)), help="May be repeated.")
@click.option("--users", type=click.IntRange(1, 100_000), help="At a time.  [default: 32; 40 or 1000 in some]")
@click.option("--rate", type=click.FloatRange(0.1), help="Requests or messages a second; else all that can be.")
@click.option("--duration", type=click.FloatRange(2, 3600), default=10.0, show_default=True, help="Seconds a run.")
@click.option("--rounds", type=click.IntRange(1, MOST_ROUNDS), default=3, show_default=True, help="Runs of each side.")
@click.option("--path", metavar="/...", help="What is asked for by HTTP.")
@click.option("--ws-path", metavar="/...", help="Where WebSockets connect; it has to echo text.")
@click.option("--out", type=click.Path(path_type=Path), default="asgictl-compare", show_default=True, help="A folder.")
@click.option("--also", metavar="COMMAND", help="A third side: 'gunicorn mysite.wsgi -b {bind}'.")
@option("--workers", type=click.IntRange(1, 63), help="Of split; in-process has those of --interfaces more.")
@option("--interfaces", type=COUNTS["interface"], default=1, help="Interface servers (split).")
@option("--threads", type=click.IntRange(1, 1024), help="Of each process, for sync code.  [default: as many in all]")
def compare(target: str, **asked: Any) -> None:
    """Measure TARGET (the demo without one) in both modes, side by side, and say which is better at what.

    Writes report.html and report.json. Takes 15 minutes for all scenarios. Needs pip install 'asgictl[compare]'.
    """
    from asgictl.loadtests import command

    command.compare(command.CompareConfig(target, **asked), told_to_end())
