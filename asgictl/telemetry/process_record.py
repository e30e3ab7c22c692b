"""What a process says of itself in Redis: what it reports to a controller, and where and when it does so."""

import socket
import time
from collections import deque
from typing import Any

import msgspec

from asgictl.machine.memory import resident_bytes
from asgictl.telemetry.metrics import REPORTS, Figures

_encoder = msgspec.msgpack.Encoder()


class ProcessRecord(msgspec.Struct):
    """One process. report: as a controller hears it; state is in it too. clock: its machine's, epoch seconds.

    first, last: its figures then, and `seconds` later, when it was recorded; what lies between is its last ten seconds.
    """

    host: str
    state: str
    report: dict[str, Any]
    clock: float
    uptime_seconds: float
    rss_bytes: int
    seconds: float
    first: Figures
    last: Figures


class Recorder:
    """Makes the records of this process, one a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._counted: deque[tuple[float, bytes]] = deque(maxlen=REPORTS)

    def record(self, report: dict[str, Any], figures: Figures) -> bytes:
        """Return the record of now, encoded."""
        figures.cpu_seconds = time.process_time()
        self._counted.append((time.monotonic(), _encoder.encode(figures)))
        (began, first), (now, last) = self._counted[0], self._counted[-1]
        record = {
            "host": socket.gethostname(),
            "state": report["state"],
            "report": report,
            "clock": time.time(),
            "uptime_seconds": now - self._began,
            "rss_bytes": resident_bytes(),
            "seconds": now - began,
            "first": msgspec.Raw(first),
            "last": msgspec.Raw(last),
        }
        return _encoder.encode(record)
