"""What a process says of itself in Redis."""

import os
import socket
import time

import msgspec

from asgictl.telemetry.metrics import REPORTS, Figures
from asgictl.telemetry.process_record import ProcessRecord, Recorder

REPORT = {"role": "worker", "process": "worker", "pid": os.getpid(), "state": "ready", "threads": 3}


def test_a_record_has_what_a_controller_hears_and_the_last_ten_seconds() -> None:
    recorder, figures = Recorder(), Figures()
    for _ in range(REPORTS + 5):
        figures.events += 1
        encoded = recorder.record(REPORT, figures)
    found = msgspec.msgpack.decode(encoded, type=ProcessRecord)
    assert (found.host, found.state, found.report) == (socket.gethostname(), "ready", REPORT)
    assert (found.first.events, found.last.events) == (6, REPORTS + 5)
    assert abs(found.clock - time.time()) < 5
    assert 0 <= found.seconds <= found.uptime_seconds
    assert found.rss_bytes > 1 << 20
    assert found.last.cpu_seconds > 0
