"""python -m asgictl.loadtests.recorder RECORD WARMUP SECONDS ARGUMENT...: runs locust, and writes down all that it saw.

Waits for the end of its standard input. Measuring begins `WARMUP` seconds after all users have started; RECORD.begun
then holds the time. It ends after `SECONDS` more, or when every user is done. RECORD then holds a Record as JSON.
"""

from locust.main import main  # isort: skip  (it patches the standard library for gevent: before anything else)

import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import gevent
from locust import events

from asgictl.loadtests.histogram import Histogram

STOP_SECONDS = 11  # more than a user waits for an answer: what is in flight at the end counts
ERRORS = 20


class Recorder:
    """Counts by the second in which a request was to begin, and by its name.

    gap: the longest that a user went from the start of what was not answered until something was.
    """

    def __init__(self, record: Path, warmup: float, seconds: float) -> None:
        self._record, self._warmup, self._seconds = record, warmup, seconds
        self._counts: defaultdict[int, defaultdict[str, Histogram]] = defaultdict(lambda: defaultdict(Histogram))
        self._failed: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._errors: Counter[str] = Counter()
        self._waiting: dict[int, float] = {}
        self._begin = self._end = float("inf")
        self._gap = 0.0
        self._missed = 0
        events.request.add_listener(self._request)
        events.spawning_complete.add_listener(lambda **_: gevent.spawn(self._measure))
        events.init.add_listener(self._init)
        events.quitting.add_listener(self._write)

    def _init(self, environment: Any, **_: Any) -> None:
        self._environment = environment

    def _measure(self) -> None:
        if self._end < float("inf"):  # a shape spawns more than once
            return
        self._end = time.time() + self._warmup + self._seconds
        gevent.sleep(self._warmup)
        missed, self._begin = self._missed_starts(), time.time()
        begun = self._record.with_suffix(".begun")
        begun.with_suffix(".new").write_text(str(self._begin))
        begun.with_suffix(".new").rename(begun)
        gevent.sleep(self._seconds)
        self._missed = self._missed_starts() - missed
        self._environment.runner.quit()

    def _missed_starts(self) -> int:
        return getattr(self._environment, "missed_starts", 0)

    def _request(self, name: str, response_time: float, start_time: float, exception: Any, **_: Any) -> None:
        user, now = id(gevent.getcurrent()), time.time()
        if self._begin <= start_time < self._end:
            second = int(start_time - self._begin)
            if exception is None:
                self._counts[second][name].record(response_time / 1e3)
            else:
                self._failed[second][name] += 1
                self._errors[f"{name}: {exception or type(exception).__name__}"] += 1
        if exception is not None:
            self._waiting.setdefault(user, start_time)
        elif name != "connect":
            began = self._waiting.pop(user, start_time)
            if self._begin <= began < self._end:
                self._gap = max(self._gap, now - began)

    def _write(self, **_: Any) -> None:
        unanswered = [now - began for began in self._waiting.values() if (now := min(time.time(), self._end)) > began]
        record = {
            "begin": self._begin if self._begin < float("inf") else None,
            "seconds": self._seconds,
            "counts": self._counts,
            "failed": self._failed,
            "errors": dict(self._errors.most_common(ERRORS)),
            "gap": max([self._gap, *unanswered]),
            "missed": self._missed,
        }
        self._record.write_text(json.dumps(record))


if __name__ == "__main__":
    Recorder(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    sys.argv = ["locust", "--stop-timeout", str(STOP_SECONDS), "--exit-code-on-error", "0", *sys.argv[4:]]
    sys.stdin.read()  # until the server serves: it starts while this process loads
    main()
