"""python -m asgictl.loadtests.recorder RECORD WARMUP SECONDS USERS EVENTS PATIENCE ARGUMENT...: records locust's users.

Waits for the end of its standard input. Measuring begins `WARMUP` seconds after all users of ARGUMENT have started;
RECORD.begun then holds the time. It ends after `SECONDS` more, when `EVENTS` were answered (0: however many), or when
every user is done; after a third of the time there are to be `USERS`, 0 for no more. Who waits longer than `PATIENCE`
seconds is affected. RECORD then holds what docs/compare.md describes, as JSON.
"""

from locust.main import main  # isort: skip  (it patches the standard library for gevent: before anything else)

import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust import events

from asgictl.loadtests.histogram import Histogram

STOP_SECONDS = 11  # more than a user waits for an answer: what is in flight at the end counts
ERRORS = 20
SPAWN_RATE = 500
GROWS_AT = 1 / 3
WATCH_SECONDS = 0.01


class Recorder:
    """Counts by the second in which a request was to begin, and by its name.

    gaps: of each second, the longest that a user went from the start of what was not answered until something was.
    affected: the users, numbered, of whom something failed, was closed, never sent, or tried their patience. held:
    sockets, at times.
    lateness: by how much a timer of this process comes too late, since something else has its core.
    """

    def __init__(
        self, record: Path, warmup: float, seconds: float, users: int, limit: int, patience: float
    ) -> None:  # fmt: skip
        self._record, self._warmup, self._seconds, self._users = record, warmup, seconds, users
        self._limit, self._patience = limit, patience
        self._answered, self._enough = 0, Event()
        self._counts: defaultdict[int, defaultdict[str, Histogram]] = defaultdict(lambda: defaultdict(Histogram))
        self._failed: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._errors: Counter[str] = Counter()
        self._affected: defaultdict[int, set[int]] = defaultdict(set)
        self._numbers: dict[int, int] = {}
        self._waiting: dict[int, float] = {}
        self._gaps: defaultdict[int, float] = defaultdict(float)
        self._held: list[tuple[float, int]] = []
        self._lateness = Histogram()
        self._begin = self._end = float("inf")
        self._missed = self._sockets = 0
        events.request.add_listener(self._request)
        events.spawning_complete.add_listener(lambda **_: gevent.spawn(self._measure))
        events.init.add_listener(self._init)
        events.quitting.add_listener(self._write)

    def _init(self, environment: Any, **_: Any) -> None:
        self._environment = environment

    def _measure(self) -> None:
        if self._end < float("inf"):  # a shape spawns more than once, and so do we
            return
        self._end = self._environment.measured_until = time.time() + self._warmup + self._seconds
        gevent.sleep(self._warmup)
        missed, self._begin = self._missed_starts(), time.time()
        begun = self._record.with_suffix(".begun")
        begun.with_suffix(".new").write_text(str(self._begin))
        begun.with_suffix(".new").rename(begun)
        watching = gevent.spawn(self._watch)
        if self._users:
            gevent.sleep(self._seconds * GROWS_AT)
            self._held.append((time.time(), self._sockets))
            self._environment.runner.start(self._users, SPAWN_RATE, wait=False)
        if self._enough.wait(self._end - time.time()):
            self._end = self._environment.measured_until = time.time()
            self._seconds = self._end - self._begin
        watching.kill()
        self._held.append((time.time(), self._sockets))
        self._missed = self._missed_starts() - missed
        self._environment.runner.quit()

    def _missed_starts(self) -> int:
        return getattr(self._environment, "missed_starts", 0)

    def _watch(self) -> None:
        while True:
            due = time.monotonic() + WATCH_SECONDS
            gevent.sleep(WATCH_SECONDS)
            self._lateness.record(time.monotonic() - due)

    def _request(self, name: str, response_time: float, start_time: float, exception: Any, **_: Any) -> None:
        user, now = id(gevent.getcurrent()), time.time()
        self._sockets += (name == "connect" and exception is None) - (name == "close" and exception is not None)
        if self._begin <= start_time < self._end:
            second = int(start_time - self._begin)
            if exception is None or name == "unsent":
                self._counts[second][name].record(response_time / 1e3)
                self._answered += 1
                if self._answered == self._limit:
                    self._enough.set()
            else:
                self._failed[second][name] += 1
            if exception is not None:
                self._errors[f"{name}: {exception or type(exception).__name__}"] += 1
            if exception is not None or response_time / 1e3 > self._patience:
                self._affected[second].add(self._numbers.setdefault(user, len(self._numbers)))
        if exception is not None:
            self._waiting.setdefault(user, start_time)
        elif name != "connect":
            self._waited(self._waiting.pop(user, start_time), now)

    def _waited(self, began: float, until: float) -> None:
        if self._begin <= began < self._end:
            second = int(began - self._begin)
            self._gaps[second] = max(self._gaps[second], until - began)

    def _write(self, **_: Any) -> None:
        for began in self._waiting.values():
            self._waited(began, min(time.time(), self._end))
        record = {
            "begin": self._begin if self._begin < float("inf") else None,
            "seconds": self._seconds,
            "counts": self._counts,
            "failed": self._failed,
            "errors": dict(self._errors.most_common(ERRORS)),
            "affected": {second: sorted(users) for second, users in self._affected.items()},
            "gaps": self._gaps,
            "held": self._held,
            "lateness": self._lateness.percentile(99) if self._lateness else 0.0,
            "missed": self._missed,
        }
        self._record.write_text(json.dumps(record))


if __name__ == "__main__":
    record, warmup, seconds, users, limit, patience, *arguments = sys.argv[1:]
    Recorder(Path(record), float(warmup), float(seconds), int(users), int(limit), float(patience))
    sys.argv = ["locust", "--stop-timeout", str(STOP_SECONDS), "--exit-code-on-error", "0", *arguments]
    sys.stdin.read()  # until the server serves: it starts while this process loads
    main()
