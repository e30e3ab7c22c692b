"""How many workers an instance is to have between a least and a most: decided each second, without I/O.

It grows at once when events wait, to what arrivals and handlers' times demand, and so that what waits is gone soon. It
shrinks only to the most that was needed for a while, so that a load which comes and goes keeps its workers.
"""

from collections import deque
from math import ceil
from typing import NamedTuple

WAIT_SECONDS = 0.1  # that the oldest event may wait
GROW_SHARE = 0.7  # of threads that are busy, to which it grows
SHRINK_SHARE = 0.5  # to which it shrinks: less, so that it does not grow again at the next gust
CATCH_UP_SECONDS = 2.0  # in which what waits is to be gone
CALM_SECONDS = 20.0  # that fewer workers have to be enough before some end
RESERVE_SHARE = 0.05  # of the machine's memory, that stays free


class Load(NamedTuple):
    """Of the last seconds. events: completed a second. busy: threads that ran sync code. waiting: events, now.

    oldest_seconds: for which the oldest of them has waited.
    """

    events: float
    busy: float
    waiting: int
    oldest_seconds: float


class Step(NamedTuple):
    """To so many workers, and why."""

    workers: int
    reason: str


class Scaling:
    """Decides. threads: of a worker."""

    def __init__(self, least: int, most: int, threads: int) -> None:
        self._least = least
        self._most = most
        self._threads = threads
        self._event_seconds = 0.0  # that an event takes, as far as is known
        self._waited = 0
        self._needed: deque[tuple[float, int]] = deque()  # lately: when, and how many workers

    def decide(self, load: Load, workers: int, room: int, now: float) -> Step | None:
        """Return the step that is due, once a second. workers: that there are. room: for so many more in memory."""
        busy = self._busy(load)
        needed = ceil(busy / GROW_SHARE)
        if load.oldest_seconds > WAIT_SECONDS and workers < self._most:
            needed = max(needed, workers + 1)  # where no thread is busy, as with async code, it grows by one each time
        needed = self._within(needed)
        self._needed.append((now, self._within(max(needed, ceil(busy / SHRINK_SHARE)))))
        while now - self._needed[0][0] > CALM_SECONDS:
            self._needed.popleft()
        if needed > workers and load.oldest_seconds > WAIT_SECONDS:
            return self._grow(load, needed, workers, room)
        lately = max(count for _, count in self._needed)
        if lately < workers and now - self._needed[0][0] > CALM_SECONDS - 1:
            return Step(lately, f"{lately} would have been enough in the last {CALM_SECONDS:.0f} s")
        return None

    def _within(self, workers: int) -> int:
        return min(max(workers, self._least), self._most)

    def _busy(self, load: Load) -> float:
        """Return how many workers the arrivals keep busy, and what waits."""
        if load.events:
            self._event_seconds = load.busy / load.events
        arrivals = load.events + max(load.waiting - self._waited, 0)
        self._waited = load.waiting
        return (arrivals + load.waiting / CATCH_UP_SECONDS) * self._event_seconds / self._threads

    def _grow(self, load: Load, needed: int, workers: int, room: int) -> Step | None:
        reason = f"an event has waited for {load.oldest_seconds:.1f} s"
        if needed > workers + room:
            needed, reason = workers + room, f"{reason}; free memory is too small for {needed}"
        return Step(needed, reason) if needed > workers else None


def room(free_bytes: float, total_bytes: float, worker_bytes: float) -> int:
    """Return for how many more workers memory has room. worker_bytes: of the largest."""
    return max(int((free_bytes - RESERVE_SHARE * total_bytes) // worker_bytes), 0) if worker_bytes else 1
