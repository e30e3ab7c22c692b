"""What a comparison found: as a table, as rows for others to show, as report.json (docs/compare.md has its schema)."""

import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.verdicts import PERCENTILES, Answer, Run, answer

SCHEMA = 1
PACKAGES = ("asgictl", "uvicorn", "gunicorn", "redis", "locust", "websockets")
FORMS = {"rate": "{:,.0f}/s", "cost": "{:,.0f} µs", "kib": "{:.1f} KiB", "lost": "{:.0f} lost"}  # the others: times
COLUMNS = ("scenario", "first", "other", "ratio (spread)", "CPU µs each", "verdict")


@dataclass(frozen=True, slots=True)
class Finding:
    """A scenario with its runs by side, and what they say of the first side beside each other one."""

    scenario: Scenario
    runs: dict[str, list[Run]]
    answers: list[Answer]


class Report:
    """The findings of the scenarios that every side has runs of. settings: what was asked for, to be shown."""

    def __init__(self, comparison: Comparison, settings: dict[str, Any], *, interrupted: bool) -> None:
        self.comparison, self.interrupted = comparison, interrupted
        self.settings = settings | {"rounds": comparison.rounds, "duration": comparison.duration}
        self.machine: dict[str, Any] = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cores": {"servers": comparison.server_cores, "load": comparison.load_cores, "machine": os.cpu_count()},
            "versions": {name: version(name) for name in PACKAGES},
            "made": time.strftime("%Y-%m-%d %H:%M %Z"),
        }
        self.findings = [found for each in comparison.scenarios if (found := self._find(each))]

    def _find(self, scenario: Scenario) -> Finding | None:
        runs = {
            side.name: [run for run in self.comparison.runs if (run.side, run.scenario) == (side.name, scenario.name)]
            for side in self.comparison.sides
        }
        if not all(runs.values()):
            return None  # it was interrupted before every side had its turn
        first, *others = runs.values()
        return Finding(scenario, runs, [answer(scenario, first, other) for other in others])

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of COLUMNS for each scenario and other side; the verdict's notes follow it, a line each."""
        first = self.comparison.sides[0].name
        many = len(self.comparison.sides) > 2
        return [
            (
                found.scenario.name + (f" · {each.other}" if many else ""),
                *(headline(each.metric, found.runs[side]) for side in (first, each.other)),
                spread(each),
                " · ".join(figure("cost", found.runs[side]).removesuffix(" µs") for side in (first, each.other)),
                "\n".join([each.words, *each.notes]),
            )
            for found in self.findings
            for each in found.answers
        ]

    def summary(self) -> str:
        """Return who is ahead how often."""
        answers = [each for found in self.findings for each in found.answers]
        wins = [name for name in sorted(each.winner for each in answers) if name]
        said = [f"{name} is ahead in {len(list(group))}" for name, group in groupby(wins)]
        equal = sum(each.verdict is not None and not each.winner for each in answers)
        missing = sum(each.verdict is None for each in answers)
        said += [f"{equal} without a difference"] * bool(equal) + [f"{missing} not compared"] * bool(missing)
        return f"{len(answers)} results: " + ", ".join(said) if said else "nothing was compared"

    def conditions(self) -> list[str]:
        """Return how it was measured, a line each."""
        made, cores = self.machine, self.machine["cores"]
        pinned = f"servers on {_listed(cores['servers'])}, load on {_listed(cores['load'])}"
        shared = "shared by servers and load"
        lines = [
            f"{made['made']} · {made['platform']} · Python {made['python']} · "
            + ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
            f"{cores['machine']} cores: {pinned if cores['servers'] != cores['load'] else shared}",
            f"{self.comparison.rounds} rounds of {self.comparison.duration:g} s on each side in turn, "
            "each on servers started anew",
        ]
        for side in self.comparison.sides:
            facts = self.comparison.facts.get(side.name)
            if facts:
                roles = ", ".join(f"{count} {role}" for role, count in sorted(facts["processes"].items()))
                threads = f", {facts['threads']} threads each for sync code" if "threads" in facts else ""
                lines.append(f"{side.name}: {side.command} ({roles}{threads})")
                if facts.get("redis") == "external":
                    lines.append(f"{side.name}: Redis is not its own, so that what it uses is not seen")
            if side.name in self.comparison.failures:
                lines.append(f"{side.name} DID NOT START: {self.comparison.failures[side.name]}")
        busiest = max((run.generator for run in self.comparison.runs), default=0)
        missed = sum(run.missed for run in self.comparison.runs)
        lines.append(
            f"the load generator used at most {busiest:.0%} of a core; {missed:,} starts missed their schedule"
        )
        return lines + self.comparison.complaints + ["INTERRUPTED: not everything was measured"] * self.interrupted

    def json(self) -> str:
        """Return report.json."""
        scenarios = [
            {
                **asdict(found.scenario),
                "answers": [asdict(each) for each in found.answers],
                "runs": [asdict(run) for runs in found.runs.values() for run in runs],
            }
            for found in self.findings
        ]
        sides = [
            {"name": side.name, "command": side.command, **self.comparison.facts.get(side.name, {}),
             "failure": self.comparison.failures.get(side.name)}
            for side in self.comparison.sides
        ]  # fmt: skip
        document = {
            "schema": SCHEMA, **self.machine, "settings": self.settings, "interrupted": self.interrupted,
            "percentiles": PERCENTILES, "sides": sides, "scenarios": scenarios, "summary": self.summary(),
            "rows": self.rows(),
        }  # fmt: skip
        return json.dumps(document, indent=1)

    def show(self, console: Console) -> None:
        """Print the table, and below it how it was measured."""
        first, *others = (side.name for side in self.comparison.sides)
        table = Table(title=self.summary(), title_justify="left")
        table.add_column(COLUMNS[0], no_wrap=True)
        for title in (first, others[0] if len(others) == 1 else "other", *COLUMNS[3:-1]):
            table.add_column(title, justify="right", no_wrap=True)
        rows = self.rows()
        for row in rows:
            table.add_row(*row[:-1])
        console.print(table)
        verdicts = Table.grid(padding=(0, 2))  # beside the figures there is no room for words
        for row in rows:
            verdicts.add_row(row[0], row[-1])
        console.print(verdicts)
        for line in self.conditions():
            console.print(f"· {line}", highlight=False, markup=False)


def figure(metric: str, runs: list[Run]) -> str:
    """Return the median of a metric, with its unit; a dash where a run has none."""
    found = [run.metric(metric) for run in runs] if metric else [math.nan]
    if any(math.isnan(each) for each in found):
        return "–"
    middle = median(found)
    return FORMS[metric].format(middle) if metric in FORMS else milliseconds(middle)


def headline(metric: str, runs: list[Run]) -> str:
    """Return the same where no title says of what it is."""
    return figure(metric, runs) + {"cost": " CPU", "p99": " p99"}.get(metric, "")


def milliseconds(seconds: float) -> str:
    """Return a duration with three figures at most."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def spread(each: Answer) -> str:
    """Return the ratio and what neighbouring rounds make of it; counts have none."""
    if each.verdict is None or each.metric == "lost":
        return "–"
    verdict = each.verdict
    return f"{verdict.ratio:.2f} ({verdict.low:.2f}–{verdict.high:.2f})"


def _listed(cores: list[int]) -> str:
    return ", ".join(map(str, cores))
