"""How far each side goes: the load rises until the slowest 1% wait too long, and the last step is then narrowed.

Users keep to the rate of a step and are timed from when each request was due, so that a queue shows as it grows.
"""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from asgictl.errors import ComparisonError
from asgictl.loadtests.comparison import AGAIN, Comparison, Tick, measure
from asgictl.loadtests.run import Run
from asgictl.loadtests.scenarios import RATED, SOCKETS, Scenario
from asgictl.loadtests.servers import Side, SideError
from asgictl.loadtests.verdicts import MOST_FAILED, failed_share

FIRST_RATE = 50.0
LEAST_RATE = 1.0
NARROW = 1.15  # between the last rate that held and the first that did not
MOST_STEPS = 9
MOST_REPEATS = 4  # of disturbed steps: on a machine that stays busy a curve of two sides takes 6 minutes all the same
USERS_FOR_RATE = 0.5  # so that each waits for its turn most of the time


@dataclass(slots=True)
class Climb:
    """The steps of one side, in the order in which they were taken.

    held: the highest rate that was within the limit. lost: the lowest that was not. limited: by the generator.
    """

    steps: list[Run] = field(default_factory=list)
    held: float = 0.0
    lost: float = math.inf
    limited: bool = False

    def rates(self, limit_seconds: float) -> Iterator[float]:
        """Yield the rate of each next step; its run has been appended when the next one is asked for."""
        rate = FIRST_RATE
        while len(self.steps) < MOST_STEPS and rate >= LEAST_RATE:
            yield rate
            run = self.steps[-1]
            if holds(run, limit_seconds):
                self.held = max(self.held, rate)
            elif run.saturated:
                self.limited = True  # what the side could do is not known
                return
            else:
                self.lost = min(self.lost, rate)
            if self.held and self.lost / self.held <= NARROW:
                return
            rate = self.held * 2 if self.lost == math.inf else math.sqrt(self.held * self.lost) or self.lost / 4


def holds(run: Run, limit_seconds: float) -> bool:
    """Whether a step was within the limit: of all that was due, and with next to nothing failed."""
    return not run.error and run.metric("p99") <= limit_seconds and failed_share([run]) <= MOST_FAILED


@dataclass(slots=True)
class Curve:
    """A climb for each side under one scenario. repeats: of disturbed steps, as many as are left."""

    comparison: Comparison
    scenario: Scenario
    limit_seconds: float
    climbs: dict[str, Climb] = field(default_factory=dict)
    repeats: int = MOST_REPEATS

    def __post_init__(self) -> None:
        if self.scenario.happenings or self.scenario.unit not in ("request", "message"):
            raise ComparisonError(f"--curve {self.scenario.name}: its load does not rise")

    def run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        """Take the steps of all sides in turn. tick: told the seconds of the estimate that have passed."""
        self.climbs = {side.name: Climb() for side in self.comparison.sides}
        left = [(side, self.climbs[side.name].rates(self.limit_seconds)) for side in self.comparison.sides]
        done = 0.0
        try:
            while left and not stopping.is_set():
                for side, rates in list(left):
                    if (rate := next(rates, None)) is None or stopping.is_set():
                        left.remove((side, rates))
                        continue
                    began(f"{self.scenario.name} · {side.name} · {rate:,.0f} {self.scenario.unit}s a second")
                    self._step(side, rate, stopping)
                    done += self.comparison.round_seconds(self.scenario) / len(self.comparison.sides)
                    tick(done)
        finally:
            self.comparison.stopped()

    def _step(self, side: Side, rate: float, stopping: threading.Event) -> None:
        climb = self.climbs[side.name]
        users = min(SOCKETS, max(self.scenario.count, round(rate * USERS_FOR_RATE)))
        scenario = replace(self.scenario, rate=rate, count=users, metrics=RATED)
        number = len(climb.steps) + 1
        for again in range(AGAIN, -1, -1):  # what something disturbed counts as it is if nothing helps
            try:
                run = measure(self.comparison, side, scenario, number, stopping, lambda _: None)
            except (SideError, OSError) as error:
                run = Run(side.name, scenario.name, number, error=str(error))
            if run is None or not run.contention or not min(again, self.repeats):
                break
            self.repeats -= 1
        if run is not None:
            climb.steps.append(run)
        else:
            stopping.set()

    @property
    def estimate_seconds(self) -> float:
        """Return the most that it takes."""
        return (MOST_STEPS + MOST_REPEATS / len(self.comparison.sides)) * self.comparison.round_seconds(self.scenario)

    def words(self) -> str:
        """Say up to which rate each side was within the limit."""
        said = []
        for name, climb in self.climbs.items():
            if climb.held == 0:
                said.append(f"never with {name}")
            else:
                beyond = "at least " if climb.limited or climb.lost == math.inf else ""
                said.append(f"up to {beyond}{climb.held:,.0f} {self.scenario.unit}s a second with {name}")
            if disturbed := sum(bool(run.contention) for run in climb.steps):
                said[-1] += f" ({disturbed} of its {len(climb.steps)} steps stayed disturbed)"
        return f"{self.scenario.name}: the slowest 1% wait at most {self.limit_seconds * 1e3:g} ms " + ", ".join(said)
