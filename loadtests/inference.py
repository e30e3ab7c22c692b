"""The statistics of comparisons, without I/O: intervals of paired rounds, exact tests of counts, several tests at once.

Both sides of a round ran next to each other, since machines drift: what is judged are the logarithms of the ratios of
such pairs, which treat half and twice alike. Looking again after more rounds is another chance to be wrong, and so is
each further scenario: `remaining` and `holm` pay for them, so that ERROR and MISS hold for a whole comparison.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

ERROR = (
    0.01  # how often chance alone may say "different" anywhere in a comparison: in 20 equal ones it hardly ever does
)
MISS = 0.05  # how often an interval may miss what it is of
LOOKS = (4, 8)  # rounds after which a scenario that is decided gets no more
MOST_NEEDED = 100
LIMIT = 1e9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval. p: how probable one as far from 0 is by chance. deviation: of one difference."""

    mean: float
    low: float
    high: float
    p: float
    deviation: float


def student_p(t: float, freedom: int) -> float:
    """Return how probable a value beyond t or -t is (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    angle = math.atan2(abs(t), math.sqrt(freedom))
    cosine, total = math.cos(angle), 0.0
    if freedom > 1:
        total = term = cosine if odd else 1.0
        for factor in range(1 + odd, freedom - 2, 2):
            term *= factor / (factor + 1) * cosine * cosine
            total += term
    within = math.sin(angle) * total
    return max(0.0, 1 - (2 / math.pi * (angle + within) if odd else within))


@cache
def student_t(error: float, freedom: int) -> float:
    """Return the value that is exceeded, on either side, with this probability."""
    return _root(lambda t: student_p(t, freedom) > error, LIMIT)


def estimate(differences: Sequence[float], error: float) -> Estimate:
    """Return the mean of paired differences, with the interval that misses it with probability `error`.

    Of a single one nothing is known but itself.
    """
    mean = fmean(differences)
    if len(differences) < 2:
        return Estimate(mean, -math.inf, math.inf, 1.0, math.inf)
    deviation = stdev(differences)
    standard = deviation / math.sqrt(len(differences))
    half = student_t(error, len(differences) - 1) * standard
    p = student_p(mean / standard, len(differences) - 1) if standard else float(not mean)
    return Estimate(mean, mean - half, mean + half, p, deviation)


def rounds_needed(deviation: float, half: float, most: int = MOST_NEEDED) -> int:
    """Return how many rounds make half the interval's width this small; `most` where not even they do."""
    for rounds in range(LOOKS[0], most):
        if student_t(ERROR * remaining(rounds), rounds - 1) * deviation / math.sqrt(rounds) <= half:
            return rounds
    return most


def remaining(rounds: int, looks: Sequence[int] = LOOKS) -> float:
    """Return the share of ERROR that is left for so many rounds: each earlier look has taken half of the rest."""
    return 0.5 ** sum(rounds > look for look in looks)


def binomial_p(successes: int, trials: int) -> float:
    """Return how probable a split at least as uneven is where both sides are equally likely (exact, two-sided)."""
    fewer = min(successes, trials - successes)
    tail = sum(math.comb(trials, number) for number in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**trials))


def poisson_most(count: int, error: float) -> float:
    """Return the largest mean of which a count this small is not improbable (exact, one-sided)."""

    def too_small(mean: float) -> bool:
        return (
            sum(math.exp(number * math.log(mean) - mean - math.lgamma(number + 1)) for number in range(count + 1))
            > error
        )

    return _root(too_small, count * 10 + 100.0)


def holm(ps: Sequence[float]) -> list[float]:
    """Return each p as it counts among all of them (Holm 1979): those at most ERROR hold together."""
    adjusted, most = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        most = max(most, min(1.0, ps[place] * (len(ps) - rank)))
        adjusted[place] = most
    return adjusted


def _root(below: Callable[[float], bool], high: float) -> float:
    """Return where a test that holds from 0 on ends to hold."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle or 1e-300) else (low, middle)
    return high
