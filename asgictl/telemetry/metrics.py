"""What a process counts of itself, for `asgictl status` and /metrics.

Counts belong to the process and only grow, so nothing is lost when a controller comes or goes: a rate is the
difference between two reports. A histogram is a list: how many took at most each of BOUNDS, how many longer, and the
seconds of all.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from heapq import nsmallest
from operator import itemgetter
from time import perf_counter
from typing import Any

import msgspec

_MANTISSAS = (1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8)  # Renard's R10 (ISO 3), rounded: steps of about a quarter
BOUNDS = [round(mantissa * 10.0**power, 7) for power in range(-4, 2) for mantissa in _MANTISSAS]  # seconds
_LENGTH = len(BOUNDS) + 2
REPORTS = 11  # kept of each process: rates and quantiles are those of the last ten seconds
MOST_RUNS = 3  # told of a process
CLIENT_GONE = 499  # nginx's word for a request whose client left before its response


def _histogram() -> list[float]:
    return [0] * _LENGTH


class Figures(msgspec.Struct):
    """One process's. Each field is written by one thread; what a role has not, stays 0.

    events, errors (5xx, 1011), busy_seconds: of what ran the application, the last in its sync threads.
    requests: by status. request_*, turn_*: histograms of the time from receipt to answer, what of it the application
    took, and the rest, which is the wait. http, websockets, running: how many are open, and run, now.
    redis_silent_seconds: since Redis last answered, while that is due each second.
    full: whether there are as many connections as open files allow. draining: whether the process is to end.
    runs: of what runs the longest: its name, and for how many seconds. It is no count, and not summed.
    adapted: requests and sockets that came by ASGI's messages, from a server with protocols of its own.
    moved, refused, overdue: sockets that another process took, that it refused, and that were closed instead. waiting:
    sockets that are still to be moved now. until: the deadline of that in epoch seconds, else 0.
    """

    events: int = 0
    errors: int = 0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    http: int = 0
    websockets: int = 0
    running: int = 0
    redis_silent_seconds: float = 0.0
    adapted: int = 0
    full: int = 0
    draining: int = 0
    moved: int = 0
    refused: int = 0
    overdue: int = 0
    waiting: int = 0
    until: float = 0.0
    runs: list[tuple[str, float]] = []
    requests: dict[int, int] = {}
    rejections: dict[str, int] = {}
    request_seconds: list[float] = msgspec.field(default_factory=_histogram)
    request_wait_seconds: list[float] = msgspec.field(default_factory=_histogram)
    request_run_seconds: list[float] = msgspec.field(default_factory=_histogram)
    turn_seconds: list[float] = msgspec.field(default_factory=_histogram)
    turn_wait_seconds: list[float] = msgspec.field(default_factory=_histogram)
    turn_run_seconds: list[float] = msgspec.field(default_factory=_histogram)

    def __post_init__(self) -> None:
        for name in HISTOGRAMS:
            if len(getattr(self, name)) != _LENGTH:
                raise ValueError(f"{name} has the wrong number of buckets")

    def answer(self, status: int, seconds: float, run_seconds: float) -> None:
        """A request was answered so long after it came, CLIENT_GONE after none. run_seconds: 0 when it is not known."""
        self.requests[status] = self.requests.get(status, 0) + 1
        if seconds:
            add(seconds, run_seconds, self.request_seconds, self.request_run_seconds, self.request_wait_seconds)

    def turn(self, seconds: float, run_seconds: float) -> None:
        """A turn was answered so long after the first of its frames came."""
        add(seconds, run_seconds, self.turn_seconds, self.turn_run_seconds, self.turn_wait_seconds)


COUNTS = [name for name in Figures.__struct_fields__ if name != "runs"]
HISTOGRAMS = [name for name in Figures.__struct_fields__ if name.startswith(("request_", "turn_"))]


def add(seconds: float, run_seconds: float, whole: list[float], run: list[float], wait: list[float]) -> None:
    """Count one more, and its parts when they are known. Written out thrice: a call costs as much as what it does."""
    whole[bisect_left(BOUNDS, seconds)] += 1
    whole[-1] += seconds
    if run_seconds:
        run[bisect_left(BOUNDS, run_seconds)] += 1
        run[-1] += run_seconds
        seconds -= run_seconds
        if seconds < 0.0:  # two machines' clocks
            seconds = 0.0
        wait[bisect_left(BOUNDS, seconds)] += 1
        wait[-1] += seconds


def total(reports: Iterable[Figures]) -> Figures:
    """Return the sum of what several processes, or one in several stretches of time, have counted."""
    summed = _counts(Figures())
    for report in reports:
        summed = _combined(_counts(report), summed, 1)
    return Figures(**summed)


def since(now: Figures, then: Figures) -> Figures:
    """Return what was counted between two reports of one process."""
    return Figures(**_combined(_counts(now), _counts(then), -1))


def longest(running: Iterable[tuple[float, Callable[[], str]]]) -> list[tuple[str, float]]:
    """Return as Figures.runs what has been running the longest, of pairs: when by perf_counter(), and what names it."""
    now = perf_counter()
    return [(name(), now - began) for began, name in nsmallest(MOST_RUNS, running, key=itemgetter(0))]


def _counts(figures: Figures) -> dict[str, Any]:
    return {name: getattr(figures, name) for name in COUNTS}


def _combined(first: Any, second: Any, sign: int) -> Any:
    if isinstance(first, dict):
        both = {key: _combined(first[key], second[key], sign) for key in first.keys() & second.keys()}
        return {**(second if sign > 0 else {}), **first, **both}
    if isinstance(first, list):
        return [one + sign * other for one, other in zip(first, second, strict=True)]
    return first + sign * second


def quantile(histogram: list[float], share: float) -> float | None:
    """Return the seconds within which this share was done, None when nothing was; as fine as BOUNDS are."""
    wanted = sum(histogram[:-1]) * share
    below = 0.0
    for index, count in enumerate(histogram[:-1]):
        if count and below + count >= wanted:
            low = BOUNDS[index - 1] if index else 0.0
            high = BOUNDS[index] if index < len(BOUNDS) else low
            return low + (high - low) * (wanted - below) / count
        below += count
    return None
