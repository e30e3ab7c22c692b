"""The arithmetic of a comparison, without I/O."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: requests or messages a second, and CPU microseconds for each, all processes of the side added."""

    rate: float
    cpu_microseconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """ratio: of the medians of the rates, split / other. low and high: of the ratios of neighbouring runs."""

    ratio: float
    low: float
    high: float
    rates: tuple[float, float]
    cpu_microseconds: tuple[float, float]
    met: bool


def judge(ours: list[Sample], theirs: list[Sample], at_least: float) -> Verdict:
    """Compare runs that were made in turn. Raises ValueError when the sides have not as many runs, or none."""
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} runs cannot be compared")
    rates = median(sample.rate for sample in ours), median(sample.rate for sample in theirs)
    cpu = median(s.cpu_microseconds for s in ours), median(s.cpu_microseconds for s in theirs)
    pairs = [mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)]
    ratio = rates[0] / rates[1]
    return Verdict(ratio, min(pairs), max(pairs), rates, cpu, ratio >= at_least)
