"""The arithmetic of comparisons, without I/O: what a run measured, whether two sides differ, and how to say it."""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median, variance
from typing import Any

from asgictl.loadtests.histogram import Histogram
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.usage import GENERATOR, Usage

PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)
SATURATED = 0.9  # of a core: above it the generator may be what limits
LEAST = math.log(1.05)  # a difference that nobody would act on is none
# Student's t, two-sided 98%, by degrees of freedom: chance alone says "different" in one comparison of fifty.
STUDENT = {2: 6.96, 4: 3.75, 6: 3.14, 8: 2.90, 10: 2.76, 12: 2.68, 14: 2.62, 16: 2.58, 18: 2.55}
NO_UNIT = {"connect", "close"}
LIMITED = {"rate", "p99"}  # by a generator that has no time left
COUNTS = {"lost"}
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """One side under one scenario, once. Durations in seconds, but for cpu: microseconds for each unit, by role.

    seconds: of each second of the run (rate, failed, p50, p99). percentiles: of all samples, as PERCENTILES.
    memory: the most that each role held, MiB. kib: what all processes grew by, for each user. generator: the share of a
    core that it used. missed: starts that came too late for their schedule. closed: sockets. gap: the longest that a
    user went unanswered. event_at: when the server was reloaded, or a process of its killed. error: why there is
    nothing.
    """

    side: str
    scenario: str
    round: int
    seconds: list[tuple[float, int, float | None, float | None]] = field(default_factory=list)
    rate: float = 0
    failed: int = 0
    closed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    percentiles: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    kib: float = 0
    generator: float = 0
    missed: int = 0
    gap: float = 0
    event_at: float | None = None
    note: str = ""
    error: str = ""

    @property
    def saturated(self) -> bool:
        return self.generator >= SATURATED

    def metric(self, name: str) -> float:
        """Return the figure of this name; NaN where nothing was measured."""
        if self.error or (not self.percentiles and name not in {"kib", "lost", "rate"}):
            return math.nan
        return {
            "rate": self.rate,
            "cost": sum(self.cpu.values()),
            "p50": self.percentiles[0] if self.percentiles else math.nan,
            "p99": self.percentiles[4] if self.percentiles else math.nan,
            "kib": self.kib,
            "lost": float(self.failed + self.closed),
            "gap": self.gap,
        }[name]


def summarise(
    scenario: Scenario, side: str, number: int, record: dict[str, Any], usage: Usage, event_at: float | None, note: str
) -> Run:
    """Return what a recorder's record and the samples of usage say."""
    begin, duration = record["begin"], record["seconds"]
    everything, units, failed, closed = Histogram(), 0, 0, 0
    seconds: list[tuple[float, int, float | None, float | None]] = []
    for second in range(math.ceil(duration)):
        timed, done = Histogram(), 0
        for name, counts in record["counts"].get(str(second), {}).items():
            histogram = Histogram({int(bucket): count for bucket, count in counts.items()})
            done += 0 if name in NO_UNIT else histogram.total()
            if name not in NO_UNIT and scenario.fast in ("", name):
                timed.update(histogram)
        wrong = Counter(record["failed"].get(str(second), {}))
        closed += wrong.pop("close", 0)
        failed += wrong.total()
        units += done
        everything.update(timed)
        spread = (timed.percentile(50), timed.percentile(99)) if timed else (None, None)
        seconds.append((done, wrong.total(), *spread))
    end = begin + duration
    used, held, before = usage.cpu(begin, end), usage.memory(begin, end), dict(usage.samples[0].memory)
    generator = used.pop(GENERATOR, 0.0)
    for memory in (held, before):
        memory.pop(GENERATOR, None)
    return Run(
        side, scenario.name, number, seconds, units / duration, failed, closed, record["errors"],
        [everything.percentile(percent) for percent in PERCENTILES] if everything else [],
        {role: cpu * 1e6 / units for role, cpu in used.items()} if units else {},
        {role: size / MIB for role, size in held.items()},
        (sum(held.values()) - sum(before.values())) / 1024 / scenario.count,
        generator / duration, record["missed"], record["gap"], event_at, note,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """ratio: of the medians, ours / theirs. low and high: of the ratios of neighbouring rounds. differs: see judge."""

    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    differs: bool


def judge(ours: list[float], theirs: list[float], *, plus: float = 0) -> Verdict:
    """Compare rounds that were made in turn; `plus` is added to each figure, so that counts may be 0.

    They differ when the medians are more than 5% apart, and the means of the logarithms further than chance makes
    them in one of fifty comparisons of equal sides (Student's t). One round alone never differs.
    Raises ValueError when the sides have not as many rounds, or none, or a figure is not above 0.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} runs cannot be compared")
    if min(ours + theirs) + plus <= 0:
        raise ValueError("a figure of 0 has no ratio")
    logs = [[math.log(figure + plus) for figure in side] for side in (ours, theirs)]
    middle = median(ours), median(theirs)
    ratio = (middle[0] + plus) / (middle[1] + plus)
    pairs = [math.exp(mine - other) for mine, other in zip(*logs, strict=True)]
    differs = False
    if len(ours) > 1:
        error = math.sqrt(sum(variance(side) for side in logs) / len(ours))
        apart = abs(fmean(logs[0]) - fmean(logs[1]))
        differs = abs(math.log(ratio)) > LEAST and apart > STUDENT[2 * len(ours) - 2] * error
    return Verdict(ratio, min(pairs), max(pairs), *middle, differs)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scenario's runs say of the first side beside another: in words, and the figures of `metric` behind it.

    winner: a side's name, or "" without a difference or without a verdict. notes: what to know before trusting it.
    """

    scenario: str
    other: str
    metric: str
    verdict: Verdict | None
    winner: str
    words: str
    notes: tuple[str, ...] = ()


def answer(scenario: Scenario, ours: list[Run], theirs: list[Run]) -> Answer:
    """Judge the rounds of two sides; rounds that only one of them has are left out."""
    first, other = ours[0].side, theirs[0].side
    said = partial(Answer, scenario.name, other)
    if failure := next((run for run in ours + theirs if run.error), None):
        return said(scenario.metrics[0], None, "", f"not compared: {failure.side} failed", (failure.error,))
    rounds = min(len(ours), len(theirs))
    ours, theirs = ours[:rounds], theirs[:rounds]
    saturated = any(run.saturated for run in ours + theirs)
    usable = [name for name in scenario.metrics if not (saturated and name in LIMITED)]
    metric = usable[0] if usable else scenario.metrics[0]
    notes = _notes(ours, theirs)
    figures = [[run.metric(metric) for run in runs] for runs in (ours, theirs)]
    for side, found in zip((first, other), figures, strict=True):
        if metric not in COUNTS and any(math.isnan(figure) or figure <= 0 for figure in found):
            return said(metric, None, "", f"not compared: {side} answered nothing", notes)
    verdict = judge(*figures, plus=1 if metric in COUNTS else 0)
    if not verdict.differs:
        words = "one round says nothing of the spread; use --rounds"
        if rounds > 1:
            words = "no difference" + " beyond the spread of the rounds" * (abs(math.log(verdict.ratio)) > LEAST)
        return said(metric, verdict, "", words + _counts(metric, first, other, verdict), notes)
    more = verdict.ratio > 1
    winner = first if more == (metric == "rate") else other
    loser = other if winner == first else first
    words = SAYINGS[metric].format(
        winner=winner, loser=loser, unit=scenario.unit,
        times=_times(max(verdict.ratio, 1 / verdict.ratio)), counts=_counts(metric, first, other, verdict),
    )  # fmt: skip
    return said(metric, verdict, winner, words, notes)


SAYINGS = {
    "rate": "{winner} serves {times} as many {unit}s",
    "cost": "{winner} is ahead: a {unit} costs {loser} {times} as much CPU",
    "p99": "{winner} is ahead: the slowest 1% wait {times} as long with {loser}",
    "kib": "{winner} is ahead: a {unit} takes {loser} {times} as much memory",
    "lost": "{winner} is ahead{counts}",
}


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times" if ratio >= 1.95 else f"{ratio:.2f} times"


def _counts(metric: str, first: str, other: str, verdict: Verdict) -> str:
    if metric not in COUNTS:
        return ""
    return f": sockets closed and requests failed: {first} {verdict.ours:.0f}, {other} {verdict.theirs:.0f}"


def _notes(ours: list[Run], theirs: list[Run]) -> tuple[str, ...]:
    """Return what a reader has to know before the figures are trusted."""
    notes = []
    for runs in (ours, theirs):
        side, busiest = runs[0].side, max(run.generator for run in runs)
        if busiest >= SATURATED:
            notes.append(f"the load generator was saturated beside {side} ({busiest:.0%} of a core): it could do more")
        if missed := sum(run.missed for run in runs):
            notes.append(f"{side}: {missed:,} starts missed their schedule")
        if runs[0].event_at is None and (failed := sum(run.failed + run.closed for run in runs)):
            common = Counter[str]()
            for run in runs:
                common.update(run.errors)
            notes.append(f"{side}: {failed:,} failed, most often {common.most_common(1)[0][0]}")
        notes += sorted({run.note for run in runs if run.note})
    return tuple(notes)
