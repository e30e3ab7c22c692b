"""How many threads suit each side: a run with each number, and then both at their best, as a scenario of its own.

Beside it the scenario itself gives both sides as many threads in all: the budget is equal there, and here nobody's.
"""

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isnan

from asgictl.loadtests.comparison import Comparison, Tick, measure
from asgictl.loadtests.report import figure
from asgictl.loadtests.run import Run
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.servers import Side, SideError, with_threads

SWEPT = ("blocking", "django-mixed")
THREADS = (1, 2, 4, 8, 16, 32)


@dataclass(slots=True)
class Sweep:
    """Sweeps some scenarios of a comparison, and then makes it. tried: by scenario and side, the runs by threads."""

    comparison: Comparison
    tried: dict[str, dict[str, dict[int, Run]]] = field(default_factory=dict)

    @property
    def swept(self) -> list[Scenario]:
        return [each for each in self.comparison.scenarios if each.name in SWEPT]

    @property
    def estimate_seconds(self) -> float:
        return self.comparison.estimate_seconds + self._seconds

    @property
    def _seconds(self) -> float:
        return sum(len(THREADS) * self.comparison.round_seconds(scenario) for scenario in self.swept)

    def run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        """Try each number of threads on each side, then compare. tick: told seconds passed."""
        before = self._seconds
        for scenario in self.swept:
            for side in self.comparison.sides:
                if side.command != with_threads(side, 10**6).command:  # it has threads that can be set
                    self._try(side, scenario, stopping, tick, began)
                if stopping.is_set():
                    self.comparison.stopped()
                    return
            where = self.comparison.scenarios.index(scenario) + 1
            self.comparison.scenarios.insert(where, at_their_best(scenario, self.tried[scenario.name]))
        self.comparison.run(stopping, lambda passed: tick(before + passed), began)

    def _try(
        self, side: Side, scenario: Scenario, stopping: threading.Event, tick: Tick, began: Callable[[str], None]
    ) -> None:
        found = self.tried.setdefault(scenario.name, {}).setdefault(side.name, {})
        for threads in THREADS:
            began(f"{scenario.name} · {side.name} · {threads} threads")
            tried = replace(scenario, threads={side.name: threads})
            try:
                run = measure(self.comparison, side, tried, threads, stopping, lambda _: None)
            except (SideError, OSError, subprocess.SubprocessError) as error:
                run = Run(side.name, scenario.name, threads, error=str(error))
            if run is None:
                return
            found[threads] = run
            tick(self._seconds * len(found) / len(THREADS) / len(self.comparison.sides))


def at_their_best(scenario: Scenario, tried: dict[str, dict[int, Run]]) -> Scenario:
    """Return a scenario in which each side has the number of threads that gave it the best figure."""
    metric = scenario.metrics[0]
    sign = 1 if metric == "rate" else -1
    best, said = {}, []
    for side, runs in tried.items():
        known = {threads: sign * each for threads, run in runs.items() if not isnan(each := run.metric(metric))}
        if known:
            best[side] = max(known, key=lambda threads: known[threads])
            figures = ", ".join(f"{threads}: {figure(metric, [run])}" for threads, run in runs.items())
            said.append(f"{side} {best[side]} ({figures})")
    question = f"The same, with as many threads in each process as suit a side best: {'; '.join(said)}"
    return replace(scenario, name=f"{scenario.name}-best", question=question, threads=best)
