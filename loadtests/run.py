"""What one run of one side measured: made of what the load generator recorded, and of what the processes used."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from asgictl.loadtests.contention import LOAD, SERVERS, Watched, disturbances
from asgictl.loadtests.histogram import Histogram
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.usage import DATABASE, GENERATOR, Usage

PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100)
SATURATED = 0.9  # of a core: above it the generator may be what limits
NO_UNIT = {"connect", "close", "unsent"}
NOT_TIMED = {"connect", "close"}
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Happening:
    """What was done to a side in mid-run: `at` seconds after its beginning, None where it has no such process.

    affected: users of whom something failed, was closed or never sent until the next one. requests: of theirs, those
    that failed. closed: sockets. gap: the longest that one of them went unanswered, seconds. note: what went wrong in
    doing it.
    """

    kind: str
    at: float | None
    way: str = ""
    affected: int = 0
    requests: int = 0
    closed: int = 0
    gap: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One side under one scenario, once. Durations in seconds, but for cpu: microseconds for each unit, by role.

    seconds: of each second of the run (rate, failed, p50, p99). histogram and percentiles (as PERCENTILES): of all
    samples, of what was due and not sent by the time that was left. memory: the most that each role held, MiB (PSS).
    done: units, or sockets where they only are held.
    kib: what all processes grew by for each further socket held. grown: MiB that they grew by in the last three
    quarters of the run. twice: requests and messages that ran again. generator: the share of a core that it used.
    missed: starts that came too late for their schedule. unsent: those that never came. closed: sockets. refused:
    attempts to connect again. affected: users. connections: those that each process held. contention: what disturbed
    it. error: why there is nothing.
    """

    side: str
    scenario: str
    round: int
    seconds: list[tuple[float, int, float | None, float | None]] = field(default_factory=list)
    rate: float = 0
    done: int = 0
    failed: int = 0
    closed: int = 0
    refused: int = 0
    unsent: int = 0
    affected: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    percentiles: list[float] = field(default_factory=list)
    histogram: dict[int, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    kib: float = 0
    grown: float = 0
    twice: int = 0
    held: int = 0
    generator: float = 0
    lateness: float = 0
    missed: int = 0
    gap: float = 0
    connections: dict[str, list[int]] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
    contention: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def saturated(self) -> bool:
        return self.generator >= SATURATED

    @property
    def wrong(self) -> int:
        """How much of what was due was not answered as it should be."""
        return self.failed + self.closed + self.refused + self.unsent

    def metric(self, name: str) -> float:
        """Return the figure of this name; NaN where nothing was measured."""
        if self.error or (not self.percentiles and name not in {"kib", "lost", "memory", "rate", "twice"}):
            return math.nan
        return {
            "rate": self.rate,
            "cost": sum(self.cpu.values()) or math.nan,
            "p50": self.percentiles[0] if self.percentiles else math.nan,
            "p99": self.percentiles[4] if self.percentiles else math.nan,
            "kib": self.kib,
            "memory": sum(size for role, size in self.memory.items() if role != DATABASE) or math.nan,
            "lost": float(self.affected),
            "twice": float(self.twice),
            "gap": self.gap,
        }[name]


def summarise(
    scenario: Scenario, side: str, number: int, record: dict[str, Any], usage: Usage, watched: Watched,
    happenings: Iterable[Happening] = (), connections: dict[str, list[int]] | None = None,
) -> Run:  # fmt: skip
    """Return what a recorder's record and the samples of usage say."""
    begin, duration = record["begin"], record["seconds"]
    everything, units, wrong = Histogram(), 0, Counter[str]()
    seconds: list[tuple[float, int, float | None, float | None]] = []
    for second in range(math.ceil(duration)):
        timed, done = _second(scenario, record["counts"].get(str(second), {}))
        failed = Counter(record["failed"].get(str(second), {}))
        wrong += failed
        units += done
        everything.update(timed)
        spread = (timed.percentile(50), timed.percentile(99)) if timed else (None, None)
        seconds.append((done, failed.total() - failed["close"], *spread))
    refused = 0 if scenario.rate else wrong["connect"]  # at a rate each attempt is a start that was due
    end = begin + duration
    used = usage.cpu(begin, end)
    generator = used.pop(GENERATOR, 0.0)
    ours = {SERVERS: sum(used.values()), LOAD: generator}
    lateness = record["lateness"] if scenario.metrics[0] == "p99" else None
    held = record["held"][-1][1] if record["held"] else 0
    return Run(
        side, scenario.name, number, seconds, units / duration, units or held,
        failed=wrong.total() - wrong["close"] - refused, closed=wrong["close"], refused=refused,
        unsent=sum(sum(counts.get("unsent", {}).values()) for counts in record["counts"].values()),
        affected=len(_affected(record)), errors=record["errors"],
        percentiles=[everything.percentile(percent) for percent in PERCENTILES] if everything else [],
        histogram=dict(sorted(everything.items())),
        cpu={role: seconds * 1e6 / units for role, seconds in used.items()} if units else {},
        memory={role: size / MIB for role, size in usage.memory(begin, end).items()},
        kib=_kib(record["held"], usage), held=held,
        grown=(usage.weight(end) - usage.weight(begin + duration / 4)) / MIB, twice=record.get("twice", 0),
        generator=generator / duration, lateness=record["lateness"], missed=record["missed"],
        gap=max(record["gaps"].values(), default=0.0), connections=connections or {},
        happenings=_felt(list(happenings), record),
        contention=disturbances(watched, usage.cores(begin, end), ours, duration, lateness),
    )  # fmt: skip


def _second(scenario: Scenario, counts: dict[str, dict[str, int]]) -> tuple[Histogram, int]:
    """Return the samples of a second whose time counts, and how many units were done."""
    timed, done = Histogram(), 0
    for name, buckets in counts.items():
        histogram = Histogram({int(bucket): count for bucket, count in buckets.items()})
        done += 0 if name in NO_UNIT else histogram.total()
        if (name not in NOT_TIMED and scenario.fast in ("", name)) or name == "unsent":
            timed.update(histogram)
    return timed, done


def _affected(record: dict[str, Any], first: float = 0, last: float = math.inf) -> set[int]:
    return {user for second, users in record["affected"].items() if first <= int(second) < last for user in users}


def _felt(happenings: list[Happening], record: dict[str, Any]) -> list[Happening]:
    """Give each what users noticed from its second on until the next one's."""
    felt = []
    bounds = [each.at for each in happenings if each.at is not None] + [math.inf]
    until = dict(pairwise(bounds))
    for each in happenings:
        if each.at is None:
            felt.append(each)
            continue
        first, last = math.floor(each.at), math.floor(until[each.at]) if until[each.at] < math.inf else math.inf
        within = [second for second in range(math.ceil(record["seconds"])) if first <= second < last]
        failed = sum((Counter(record["failed"].get(str(second), {})) for second in within), Counter[str]())
        felt.append(
            replace(
                each, affected=len(_affected(record, first, last)),
                requests=failed.total() - failed["close"], closed=failed["close"],
                gap=max((record["gaps"].get(str(second), 0.0) for second in within), default=0.0),
            )
        )  # fmt: skip
    return felt


def _kib(held: list[tuple[float, int]], usage: Usage) -> float:
    """Return by how much memory grew from the first number of sockets to the last, for each."""
    if len(held) < 2 or held[-1][1] <= held[0][1]:
        return 0.0
    (warm, before), (end, after) = held[0], held[-1]
    return (usage.weight(end) - usage.weight(warm)) / 1024 / (after - before)
