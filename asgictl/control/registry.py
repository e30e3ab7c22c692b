"""What processes have reported of themselves in the last seconds: their rates, and the quantiles of all together."""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from asgictl.telemetry.controller_client import PUSH_SECONDS
from asgictl.telemetry.metrics import REPORTS, Figures, quantile, since, total

# What `status` and `start` know while the controller is away.
UNKNOWN: dict[str, Any] = {"ready": [], "failed": [], "figures": {}, "rejections": {}, "channels": {}, "silenced": []}
UNKNOWN |= {"moves": {}, "ended": {}, "requests": None, "turns": None}
MOVES = ("moved", "refused", "overdue")  # counts of sockets, which are kept by slot too when a process ends
SHOWN = (
    *("events", "errors", "http", "websockets", "running", "redis_silent_seconds", "full"),
    *(*MOVES, "waiting", "until"),
)
SHARES = {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99}


class History:
    """By process id. totals: a file that keeps what processes which have ended had counted, for a next controller."""

    def __init__(self, totals: Path | None = None) -> None:
        self._totals = totals
        self._ended = Figures()
        if totals:
            with contextlib.suppress(OSError, ValueError):  # none has ended, or somebody else has written there
                self._ended = msgspec.json.decode(totals.read_bytes(), type=Figures)
        self._reports: dict[int, deque[tuple[float, Figures]]] = {}
        self._moves: dict[str, Counter[str]] = {}  # by slot, what those counted that have ended
        self.heard: dict[int, float] = {}  # when each last said anything, from ready on; by time.monotonic()

    def hear(self, pid: int) -> None:
        """A process has said something."""
        self.heard[pid] = time.monotonic()

    def add(self, pid: int, figures: Figures) -> None:
        """A process has reported."""
        self.hear(pid)
        self._reports.setdefault(pid, deque(maxlen=REPORTS)).append((time.monotonic(), figures))

    def recall(self, pid: int, at: float, seconds: float, first: Figures, last: Figures) -> None:
        """A process has reported at a time, and first so many seconds before."""
        self._reports[pid] = deque([(at - seconds, first), (at, last)])

    def forget(self, pid: int, slot: str = "", *, has_ended: bool = True) -> None:
        """Hear no more of a process; a stranger's end does nothing.

        slot: in which it ran. has_ended: else it comes again with its counts.
        """
        reports = self._reports.pop(pid, None)
        self.heard.pop(pid, None)
        if reports and has_ended:
            self._moves.setdefault(slot, Counter()).update(_moves(reports[-1][1]))
            self._ended = total([self._ended, reports[-1][1]])
            if self._totals:
                new = self._totals.with_suffix(".new")
                with contextlib.suppress(OSError):  # on a full disk the old ones stay
                    new.write_bytes(msgspec.json.encode(self._ended))
                    os.replace(new, self._totals)

    def moves(self, slots: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """Return what processes have counted of MOVES, those too that have ended, by slot. slots: pids, by slot."""
        moves = {slot: Counter(counted) for slot, counted in self._moves.items()}
        for slot, pid in slots.items():
            if reports := self._reports.get(pid):
                moves.setdefault(slot, Counter()).update(_moves(reports[-1][1]))
        return {slot: dict(counted) for slot, counted in moves.items() if any(counted.values())}

    def latest(self) -> dict[int, Figures]:
        """Return what each process last said."""
        return {pid: reports[-1][1] for pid, reports in self._reports.items()}

    def work(self, pids: Iterable[int]) -> tuple[float, float]:
        """Return what processes did a second between their last two reports: events completed, busy threads."""
        known = [self._reports[pid] for pid in pids if pid in self._reports]
        pairs = [(reports[-2], reports[-1]) for reports in known if len(reports) > 1]
        spans = [(max(now - then, PUSH_SECONDS), first, last) for (then, first), (now, last) in pairs]
        events = sum((last.events - first.events) / seconds for seconds, first, last in spans)
        return events, sum((last.busy_seconds - first.busy_seconds) / seconds for seconds, first, last in spans)

    def silent_seconds(self, pid: int) -> float:
        """Return how long ago a process last said anything; 0 for one that has yet to."""
        now = time.monotonic()
        return now - self.heard.get(pid, now)

    def summary(self) -> dict[str, Any]:
        """Return figures by process id, and of all: rejections by reason; requests and turns, rates and quantiles."""
        now, lately = time.monotonic(), {}
        processes: dict[int, dict[str, Any]] = {}
        rates = {"request": 0.0, "turn": 0.0}
        for pid, reports in self._reports.items():
            (began, first), (ended, last) = reports[0], reports[-1]
            lately[pid] = passed = since(last, first)
            seconds = max(ended - began, PUSH_SECONDS)
            for kind in rates:
                rates[kind] += sum(getattr(passed, kind + "_seconds")[:-1]) / seconds
            processes[pid] = {
                "cpu_share": passed.cpu_seconds / seconds if len(reports) > 1 else None,
                "busy_threads": passed.busy_seconds / seconds,
                "heard_seconds_ago": now - ended,
                **{name: getattr(last, name) for name in SHOWN},
                "runs": [{"what": target, "seconds": seconds + now - ended} for target, seconds in last.runs],
            }
        recent, ever = total(lately.values()), total([self._ended, *self.latest().values()])
        return {
            "figures": processes,
            "rejections": ever.rejections,
            "requests": {**_timing("request", recent, ever, rates), "by_status": ever.requests},
            "turns": _timing("turn", recent, ever, rates),
        }


def _moves(figures: Figures) -> dict[str, int]:
    return {kind: getattr(figures, kind) for kind in MOVES}


def _timing(kind: str, recent: Figures, ever: Figures, rates: dict[str, float]) -> dict[str, Any]:
    whole, wait, run = (
        {key: quantile(getattr(recent, f"{kind}_{part}seconds"), share) for key, share in SHARES.items()}
        for part in ("", "wait_", "run_")
    )
    total = int(sum(getattr(ever, kind + "_seconds")[:-1]))
    return {"total": total, "per_second": rates[kind], **whole, "wait": wait, "run": run}
