"""make peers: the Django example under asgictl and under what people run today; puts the results into docs/peers.md.

The recipes are those of that page: each row of its table is a side, as for `asgictl compare --also`.
"""

import argparse
import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from asgictl.loadtests.command import share_cores
from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.report import figure
from asgictl.loadtests.scenarios import DJANGO, Scenario, choose
from asgictl.loadtests.servers import Side
from benchmarks.compared import put
from benchmarks.database import ROOT, SITE, prepared

PAGE = ROOT / "docs" / "peers.md"
MARKS = "<!-- peers: made by make peers -->\n", "<!-- peers end -->"
RECIPE = re.compile(r"^\| ([^|]+) \| `([^`|]*\{(?:bind|port)\}[^`|]*)` \| (yes|no) \|", re.M)
COLUMNS = {"rate": "rate", "p99": "p99", "cost": "CPU each", "memory": "memory"}
OURS = (
    Side("asgictl split", "asgictl start asgictl_app:app --bind {bind} -d --workers 2 --threads 3"),
    Side(
        "asgictl in-process",
        "asgictl start mysite.asgi:application --bind {bind} -d --mode inprocess --workers 3 --threads 2",
    ),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A row of the page's table."""

    side: Side
    has_sockets: bool


def recipes() -> list[Recipe]:
    """Return those of the page."""
    return [
        Recipe(Side(name, command), sockets == "yes") for name, command, sockets in RECIPE.findall(PAGE.read_text())
    ]


def measure(sides: Sequence[Side], scenarios: list[Scenario], arguments: argparse.Namespace) -> str:
    """Return a table for each scenario, as Markdown."""
    comparison = Comparison(list(sides), scenarios, arguments.rounds, arguments.seconds, *share_cores())
    comparison.run(threading.Event(), lambda _: None, lambda what: print(what, file=sys.stderr, flush=True))
    return "".join(table(comparison, scenario) for scenario in comparison.scenarios)


def table(comparison: Comparison, scenario: Scenario) -> str:
    """Return the medians of each side's rounds; users who noticed where something was done to the sides."""
    columns = {"lost": "users who noticed"} if scenario.happenings else COLUMNS
    lines = [f"\n**{scenario.name}**: {scenario.question}\n", "| | " + " | ".join(columns.values()) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for side in comparison.sides:
        runs = [run for run in comparison.runs if (run.side, run.scenario) == (side.name, scenario.name)]
        notes = {each.note for run in runs for each in run.happenings if each.at is None}
        notes |= {run.error for run in runs if run.error}
        cells = ["; ".join(sorted(notes))] if notes else [figure(metric, runs) for metric in columns]
        lines.append(f"| {side.name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    told, found = parser.parse_args(arguments), recipes()
    with prepared() as environment:
        os.environ |= environment
        os.chdir(SITE)
        pages = choose(("django-view", "django-write"), DJANGO, None, None, None, None)
        (deploy,) = choose(("deploy",), DJANGO, None, None, None, None)
        deploy = replace(deploy, users=("Hello",), ws_path="")  # which all of them can answer
        measured = measure([*OURS, *(each.side for each in found)], [*pages, deploy], told)
        rooms = [*OURS, *(each.side for each in found if "Redis" in each.side.name)]
        measured += measure(rooms, choose(("django-socket",), DJANGO, None, None, None, None), told)
    put(PAGE, measured.lstrip() + "\n", MARKS)


if __name__ == "__main__":
    main()
