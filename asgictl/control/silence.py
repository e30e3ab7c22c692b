"""Processes that say nothing: whom the controller ends.

A process that stands still (SIGSTOP) or whose code holds the GIL in C cannot be told anything, nor end itself. Its
events run elsewhere once its lease has lapsed, but it keeps its sockets, its port and its slot.
"""

import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress

import psutil

logger = logging.getLogger("asgictl.controller")
CHECK_SECONDS = 1.0  # between two looks at who is silent
LATE_SECONDS = 2.0  # by which a look that comes too late excuses everybody: it was the controller that stood still
LEAST_SUSPECT_SECONDS = 1.5  # of silence: more than one turn of a process's thread (controller_client.py)
REDIS_SECONDS = 1.0  # for which it is asked what a silent process ran
NAMED = 5  # events of one process, the last ones


class Silence:
    """Decides who is silent. seconds: after which a process is ended. now: by time.monotonic()."""

    def __init__(self, seconds: float, now: float) -> None:
        self._suspect_seconds = max(seconds / 2, LEAST_SUSPECT_SECONDS)
        self._excused_at = self._checked_at = now

    def suspects(self, heard: Mapping[int, float], now: float) -> dict[int, float]:
        """Return for how long those have been silent who may have to be ended; heard: when each was, by pid.

        What they run is to be found out now: once their leases have lapsed, Redis knows it no more.
        """
        if now - self._checked_at > CHECK_SECONDS + LATE_SECONDS:
            self._excused_at = now
        self._checked_at = now
        silent = {pid: now - max(at, self._excused_at) for pid, at in heard.items()}
        return {pid: seconds for pid, seconds in silent.items() if seconds >= self._suspect_seconds}


def end(process: psutil.Process) -> None:
    """Kill a process, and its group where it leads one: what supervisord starts does, a worker of gunicorn does not."""
    with suppress(psutil.Error, ProcessLookupError):
        if process.is_running() and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
