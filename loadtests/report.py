"""What a comparison found: as a table, as rows for others to show, as report.json (docs/compare.md has its schema)."""

import json
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from asgictl.loadtests.comparison import NOT_COUNTED, Comparison
from asgictl.loadtests.curve import Curve
from asgictl.loadtests.provenance import surroundings
from asgictl.loadtests.run import PERCENTILES, Run
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.verdicts import LEAST_ROUNDS, NOT_COMPARED, Answer, Outcome, reach

SCHEMA = 2
PACKAGES = ("asgictl", "uvicorn", "gunicorn", "redis", "locust", "websockets", "django", "channels", "psycopg")
FORMS = {
    "rate": "{:,.0f}/s",
    "cost": "{:,.0f} µs",
    "kib": "{:.1f} KiB",
    "memory": "{:,.0f} MiB",
    "twice": "{:.0f}",
    "lost": "{:.0f} users",
}  # the others: times
FORMS_OF_DJANGO = (
    "asgictl_app:app is the site as WSGI, with asgictl's consumers for WebSockets; "
    "mysite.asgi:application is the same site as ASGI, with consumers of Channels 4"
)
COLUMNS = ("scenario", "first", "other", "ahead by (95%)", "CPU µs each", "verdict")
ONE_ROUND = f"One round shows no spread, so nothing is judged: --rounds {2 * LEAST_ROUNDS}, or leave it out."


@dataclass(frozen=True, slots=True)
class Finding:
    """A scenario, its runs by side (none of one without part in it), and what they say of the first beside others."""

    scenario: Scenario
    runs: dict[str, list[Run]]
    answers: list[Answer]


class Report:
    """The findings of the scenarios that every side has runs of. settings: what was asked for, to be shown."""

    def __init__(self, comparison: Comparison, settings: dict[str, Any], *, interrupted: bool) -> None:
        self.comparison: Comparison = comparison
        self.interrupted: bool = interrupted
        self.settings: dict[str, Any] = settings | {"rounds": comparison.rounds, "duration": comparison.duration}
        cores = {"servers": comparison.server_cores, "load": comparison.load_cores}
        self.machine: dict[str, Any] = surroundings()
        self.machine["cores"] = cores | {"machine": self.machine.pop("cores_of_machine")}
        decided = comparison.answers()
        self.findings: list[Finding] = [found for each in comparison.scenarios if (found := self._find(each, decided))]

    def _find(self, scenario: Scenario, decided: list[Answer]) -> Finding | None:
        runs = {
            side.name: [run for run in self.comparison.runs if (run.side, run.scenario) == (side.name, scenario.name)]
            for side in self.comparison.sides
        }
        if not all(runs[side.name] for side in self.comparison.part(scenario)):
            return None  # it was interrupted before every side had its turn
        return Finding(scenario, runs, [each for each in decided if each.scenario == scenario.name])

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of COLUMNS for each answer; the verdict's notes follow it, a line each."""
        return [
            (
                self.title(each),
                *self.headlines(found, each),
                reach(each),
                " · ".join(figure("cost", found.runs[side]).removesuffix(" µs") for side in (each.first, each.other)),
                "\n".join([each.words, *each.notes]),
            )
            for found in self.findings
            for each in found.answers
        ]

    def headlines(self, found: Finding, each: Answer) -> tuple[str, str]:
        """Return both figures that an answer is about; those of a further side with its name, for it has no column."""
        ours, theirs = (headline(each, found.runs[side]) for side in (each.first, each.other))
        return ours, theirs if each.other == self.comparison.sides[1].name else f"{each.other}: {theirs}"

    def title(self, each: Answer) -> str:
        """Return what an answer is called in a list of all."""
        return question(each) + ("" if each.other == self.comparison.sides[1].name else f" beside {each.other}")

    def summary(self) -> str:
        """Return which side is ahead in what; questions are not added up, for they do not weigh alike."""
        found = [each for finding in self.findings for each in finding.answers]
        if not found:
            return "Nothing was compared."
        if all(each.rounds == 1 for each in found):
            return ONE_ROUND
        others = dict.fromkeys(each.other for each in found)
        said = {other: self._ahead([each for each in found if each.other == other]) for other in others}
        if len(said) == 1:
            return said.popitem()[1]
        return " ".join(f"Beside {other}: {what}" for other, what in said.items())

    def _ahead(self, found: list[Answer]) -> str:
        """Return who is ahead in what, of answers about the same two sides."""
        said = []
        for side in self.comparison.sides:
            if won := [question(each) for each in found if each.winner == side.name]:
                said.append(f"{side.name} is ahead in {', '.join(won)}")
        for outcome in (Outcome.EQUIVALENT, Outcome.UNDECIDED, NOT_COMPARED):
            if names := [question(each) for each in found if _kind(each) == outcome]:
                said.append(f"{outcome}: {', '.join(names)}")
        return "; ".join(said) + "."

    def sides(self) -> list[str]:
        """Return what each side is: its name, what it is compared for, its command and processes."""
        lines = []
        for side in self.comparison.sides:
            facts = self.comparison.facts.get(side.name, {"processes": {}})
            held = ", ".join(f"{count} {role}" for role, count in sorted(facts["processes"].items()))
            threads = f", {facts['threads']} threads each for sync code" if "threads" in facts else ""
            about, processes = f"{side.about}; " * bool(side.about), f" ({held}{threads})" * bool(held)
            lines.append(f"{side.name}: {about}run as {side.command}{processes}")
        return lines

    def conditions(self) -> list[str]:
        """Return how it was measured, a line each."""
        made, cores = self.machine, self.machine["cores"]
        pinned = f"the servers of a side on core {_listed(cores['servers'])}, the load on core {_listed(cores['load'])}"
        shared = "shared by servers and load, so that each disturbs the other"
        rounds = [each.rounds for found in self.findings for each in found.answers] or [0]
        counted = f"{min(rounds)} to {max(rounds)}" if min(rounds) < max(rounds) else str(max(rounds))
        lines = [
            f"{made['made']} · {made['platform']} · {made['cpu']} · Python {made['python']} · "
            + ", ".join(f"{name} {made['versions'][name]}" for name in PACKAGES if name in made["versions"]),
            f"{cores['machine']} cores: {pinned if cores['servers'] != cores['load'] else shared}",
            f"{counted} rounds of {self.comparison.duration:g} s and more, each on servers started anew; of two rounds "
            f"one has the sides in reverse order, and chance says which (seed {self.comparison.seed})",
        ]
        if database := self.settings.get("database"):
            lines.append(f"the site keeps its rows in {database}; what that uses counts for the side that is measured")
            lines.append(FORMS_OF_DJANGO)
        for side in self.comparison.sides:
            facts = self.comparison.facts.get(side.name)
            if facts:
                if held := self._placement(side.name):
                    lines.append(f"{side.name}: connections that each process held (first round): {held}")
                if facts.get("redis") == "external":
                    lines.append(f"{side.name}: Redis is not its own, so that what it uses is not seen")
            if side.name in self.comparison.failures:
                lines.append(f"{side.name} DID NOT START: {self.comparison.failures[side.name]}")
        busiest = max((run.generator for run in self.comparison.runs), default=0)
        missed = sum(run.missed for run in self.comparison.runs)
        lines.append(
            f"the load generator used at most {busiest:.0%} of a core; {missed:,} requests and messages were sent "
            "later than due, since their user still waited for the last answer"
        )
        return lines + self.comparison.complaints + ["INTERRUPTED: not everything was measured"] * self.interrupted

    def alerts(self) -> list[str]:
        """Return what a reader has to know first; of rounds that were made again, how many."""
        complaints = self.comparison.complaints
        disturbed = sum(NOT_COUNTED in line for line in complaints)
        return [line for line in complaints if NOT_COUNTED not in line] + [
            f"Something else used the machine in {disturbed} rounds: they do not count, and are named at the end."
        ] * bool(disturbed)

    def _placement(self, side: str) -> str:
        """Say how the connections of each scenario's first round lay on a side's processes."""
        firsts = {run.scenario: run.connections for run in reversed(self.comparison.runs) if run.side == side}
        return "; ".join(
            f"{name} " + ", ".join(f"{'/'.join(map(str, sorted(counts)))} {role}" for role, counts in held.items())
            for name, held in reversed(firsts.items()) if held
        )  # fmt: skip

    def json(self, curve: Curve | None = None) -> str:
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
            {"name": side.name, "about": side.about, "command": side.command,
             **self.comparison.facts.get(side.name, {}),
             "failure": self.comparison.failures.get(side.name)}
            for side in self.comparison.sides
        ]  # fmt: skip
        document = {
            "schema": SCHEMA, **self.machine, "settings": self.settings, "seed": self.comparison.seed,
            "interrupted": self.interrupted, "percentiles": PERCENTILES, "sides": sides, "scenarios": scenarios,
            "summary": self.summary(), "complaints": self.comparison.complaints, "rows": self.rows(),
        }  # fmt: skip
        if curve:
            climbs = {name: asdict(climb) for name, climb in curve.climbs.items()}
            document |= {"summary": curve.words(), "curve": asdict(curve.scenario) | {"climbs": climbs},
                         "p99_limit_seconds": curve.limit_seconds}  # fmt: skip
        return json.dumps(finite(document), indent=1)

    def show(self, console: Console) -> None:
        """Print the table, and below it how it was measured."""
        console.print(self.summary(), highlight=False, markup=False, style="bold")
        verdicts = Table.grid(padding=(0, 2))
        ours, theirs = (side.name for side in self.comparison.sides[:2])
        for title, first, other, ahead, cost, said in self.rows():
            verdict, *notes = said.splitlines()
            beside = other if ":" in other else f"{theirs} {other}"
            more = [each for each in (ahead, f"CPU µs each {cost}") if "–" not in each and each not in verdict]
            figures = " · ".join([f"{ours} {first}", beside, *more])
            verdicts.add_row(title, Text("\n").join([Text(verdict, style="bold"), Text(figures), *map(Text, notes)]))
        console.print(verdicts)
        for line in [*self.sides(), *self.conditions()]:
            console.print(f"· {line}", highlight=False, markup=False)


def figure(metric: str, runs: list[Run]) -> str:
    """Return the median of a metric, with its unit; a dash where a run has none."""
    found = [run.metric(metric) for run in runs if not run.contention or all(each.contention for each in runs)]
    if not found or any(math.isnan(each) for each in found):
        return "–"
    middle = median(found)
    return FORMS[metric].format(middle) if metric in FORMS else milliseconds(middle)


def _kind(each: Answer) -> str:
    return NOT_COMPARED if each.words.startswith(NOT_COMPARED) else each.outcome


def question(each: Answer) -> str:
    """Return what an answer is about: a scenario, and what was done in it where that is not its name."""
    return " · ".join([each.scenario, *([each.happening] if each.happening not in ("", each.scenario) else [])])


def headline(each: Answer, runs: list[Run]) -> str:
    """Return the figure that an answer is about, where no title says of what it is."""
    if each.happening:
        count = each.ours if runs[0].side == each.first else each.theirs
        return f"{count:.0f} of {each.users} users" if each.users else "–"
    return figure(each.metric, runs) + {"cost": " CPU", "p99": " p99"}.get(each.metric, "")


def finite(value: Any) -> Any:
    """Return a value as JSON can have it: None where a float is no number, or has no end."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def milliseconds(seconds: float) -> str:
    """Return a duration with three figures at most."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _listed(cores: list[int]) -> str:
    return ", ".join(map(str, cores))
