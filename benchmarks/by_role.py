"""The arithmetic of CPU microseconds for each event, by role, without I/O."""

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

ROLES = {"interface": "interface", "worker": "worker", "server": "server", "redis": "Redis", "controller": "controller"}
ALL = "all"
RATE = "events/s"


class Ratio(NamedTuple):
    """Of the medians, ours / theirs; low and high: of the ratios of neighbouring rounds."""

    ratio: float
    low: float
    high: float
    ours: float
    theirs: float


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """Compare rounds that were made in turn; figures are above 0."""
    pairs = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = median(ours), median(theirs)
    return Ratio(middle[0] / middle[1], min(pairs), max(pairs), *middle)


class Sample(NamedTuple):
    """One run: events a second, and CPU microseconds for each event, by role."""

    rate: float
    cpu: dict[str, float]


class Spread(NamedTuple):
    """One figure of several rounds: the median, the least and the most."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.middle >= 100 else 1 if self.middle >= 1 else 2
        return f"{self.middle:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


class Row(NamedTuple):
    """One role in two trees. ratio: of the medians, None without a divisor. apart: the spreads share no value."""

    role: str
    now: Spread
    then: Spread
    ratio: float | None
    apart: bool


def spread(figures: Iterable[float]) -> Spread:
    """Return what several rounds found of one figure."""
    ordered = sorted(figures)
    return Spread(median(ordered), ordered[0], ordered[-1])


def by_role(samples: list[Sample]) -> dict[str, list[float]]:
    """Return the figures of each role, round by round, in the order of ROLES, and their sums as ALL.

    Raises KeyError for a role that ROLES does not have.
    """
    used = {ROLES[role] for sample in samples for role in sample.cpu}
    found = {name: [sample.cpu.get(role, 0.0) for sample in samples] for role, name in ROLES.items() if name in used}
    return found | {ALL: [sum(sample.cpu.values()) for sample in samples]}


def describe(samples: list[Sample]) -> str:
    """Say what each role of a side uses."""
    return " · ".join(f"{role} {spread(figures)}" for role, figures in by_role(samples).items())


def describe_ratios(ours: list[Sample], theirs: list[Sample]) -> str:
    """Say how all roles together compare, and each that both sides have: ratio of medians (of neighbouring runs)."""
    first, second = by_role(ours), by_role(theirs)
    said = []
    for role in (ALL, *(each for each in first if each in second and each != ALL)):
        if min(first[role] + second[role]) > 0:
            found = ratio(first[role], second[role])
            said.append(f"{role} {found.ratio:.2f} ({found.low:.2f}–{found.high:.2f})")
    return " · ".join(said)


def ratio_of_all(ours: list[Sample], theirs: list[Sample]) -> float:
    """Return how much CPU all roles of one side use for each event, by that of the other: the medians' ratio."""
    return median(by_role(ours)[ALL]) / median(by_role(theirs)[ALL])


def compare(now: list[Sample], then: list[Sample]) -> list[Row]:
    """Compare two trees: role by role, all together, and the rate."""
    first, second = by_role(now), by_role(then)
    roles = [role for role in (*ROLES.values(), ALL) if role in first or role in second]
    found = [_row(role, first.get(role, [0.0]), second.get(role, [0.0])) for role in roles]
    return [*found, _row(RATE, [sample.rate for sample in now], [sample.rate for sample in then])]


def _row(role: str, now: list[float], then: list[float]) -> Row:
    one, other = spread(now), spread(then)
    ratio = one.middle / other.middle if other.middle else None
    return Row(role, one, other, ratio, one.low > other.high or one.high < other.low)
