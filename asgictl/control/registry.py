"""What processes have reported of themselves in the last seconds: their rates, and the quantiles of all together."""

import time
from collections import deque
from typing import Any

from asgictl.telemetry.controller_client import PUSH_SECONDS
from asgictl.telemetry.metrics import Figures, quantile, since, total

# What `status` and `start` know while the controller is away.
UNKNOWN: dict[str, Any] = {"ready": [], "failed": [], "figures": {}, "shed": {}, "channels": {}}
UNKNOWN |= {"requests": None, "turns": None}
REPORTS = 11  # kept of each process: rates and quantiles are those of the last ten seconds
SHOWN = ("events", "errors", "http", "websockets", "running", "redis_silent_seconds", "full")
SHARES = {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99}


class History:
    """By process id. A process that was forgotten is counted no more: what it had counted went with it."""

    def __init__(self) -> None:
        self._reports: dict[int, deque[tuple[float, Figures]]] = {}
        self.heard: dict[int, float] = {}  # when each last said anything, from ready on; by time.monotonic()

    def hear(self, pid: int) -> None:
        """A process has said something."""
        self.heard[pid] = time.monotonic()

    def add(self, pid: int, figures: Figures) -> None:
        """A process has reported."""
        self.hear(pid)
        self._reports.setdefault(pid, deque(maxlen=REPORTS)).append((time.monotonic(), figures))

    def forget(self, pid: int) -> None:
        """A process has ended; a stranger's end does nothing."""
        self._reports.pop(pid, None)
        self.heard.pop(pid, None)

    def latest(self) -> dict[int, Figures]:
        """Return what each process last said."""
        return {pid: reports[-1][1] for pid, reports in self._reports.items()}

    def silent_seconds(self, pid: int) -> float:
        """Return how long ago a process last said anything; 0 for one that has yet to."""
        now = time.monotonic()
        return now - self.heard.get(pid, now)

    def summary(self) -> dict[str, Any]:
        """Return figures by process id, and of all: shed by reason; requests and turns, rates and quantiles."""
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
            }
        recent, ever = total(lately.values()), total(self.latest().values())
        return {
            "figures": processes,
            "shed": ever.shed,
            "requests": {**_timing("request", recent, ever, rates), "by_status": ever.requests},
            "turns": _timing("turn", recent, ever, rates),
        }


def _timing(kind: str, recent: Figures, ever: Figures, rates: dict[str, float]) -> dict[str, Any]:
    whole, wait, run = (
        {key: quantile(getattr(recent, f"{kind}_{part}seconds"), share) for key, share in SHARES.items()}
        for part in ("", "wait_", "run_")
    )
    total = int(sum(getattr(ever, kind + "_seconds")[:-1]))
    return {"total": total, "per_second": rates[kind], **whole, "wait": wait, "run": run}
