"""Slots: supervised processes of one role, of which some run and others are free.

A change never makes a gap: what is new starts in free slots, and only once all of it is ready does the old drain.
"""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from asgictl.control.log_tail import size, tail
from asgictl.control.registry import UNKNOWN
from asgictl.control.stacks import Process, stacks
from asgictl.control.supervisord_client import HOLDERS, SERVING, Supervisor
from asgictl.errors import NotRunning, StartError
from asgictl.telemetry.controller_client import ask

POLL_SECONDS = 0.05
# supervisord's states of a process
ENDED = {"STOPPED", "EXITED", "FATAL"}
FAILED = {"BACKOFF", "EXITED", "FATAL"}
ENDED_EARLY = "ended before it was ready"
HOW_SECONDS = 3.0  # that the controller has to learn how


class Interrupted(Exception):
    """Somebody asked to stop while something was starting."""


class Slots:
    """The slots of an instance, by group as in supervisor.conf.

    stopping: set by whoever wants a start to be given up.
    """

    def __init__(self, run_dir: Path, stopping: threading.Event) -> None:
        self._run_dir = run_dir
        self._stopping = stopping
        self._ended_at: dict[str, float] = {}  # when it was first seen
        self._logged: dict[str, int] = {}  # by process, before it was started
        self._supervisor = Supervisor(run_dir)

    def serving(self, group: str) -> list[str]:
        """Return the processes of a group that run, or are to, in the order of their slots."""
        return self._in(group, SERVING)

    def _in(self, group: str, states: Collection[str]) -> list[str]:
        return sorted(
            s["name"] for s in self._supervisor.processes() if s["group"] == group and s["statename"] in states
        )

    def reports(self) -> dict[str, Any]:
        """Return what processes have reported to the controller: {"ready": …, "failed": …, "moves": …}."""
        with suppress(OSError):  # the controller is away
            reports: dict[str, Any] = ask(self._run_dir, "reports")
            return UNKNOWN | reports  # a controller of an older release may know less
        return UNKNOWN

    def release(self, names: Collection[str]) -> str:
        """Return "release NAME" of those of these that have one, or ""."""
        found = {each.get("release", "") for each in self.reports()["ready"] if each["process"] in names} - {""}
        return f"release {', '.join(sorted(found))}" if found else ""

    def ready(self, names: Collection[str]) -> int:
        """Return how many processes in these slots have reported that they are ready; gunicorn's has several."""
        return sum(report["process"] in names for report in self.reports()["ready"])

    def start(
        self, group: str, count: int, deadline: float, is_ready: Callable[[list[str]], bool] | None = None
    ) -> list[str]:
        """Start so many in free slots, and return their names once all are ready; else none of them is left.

        is_ready: given the names; by default, each has reported. deadline: by time.monotonic(). Raises what a process
        said before it gave up, Interrupted, or StartError, also at the deadline.
        """
        free = self._in(group, ENDED)[:count]
        if len(free) < count:
            raise StartError(f"only {len(free)} more {group} can start now; asgictl status shows those that drain")
        self._forget(free)
        self._logged |= {name: size(self._log(name)) for name in free}
        try:
            for name in [*free, *([HOLDERS[group]] if group in HOLDERS else [])]:
                self._supervisor.start(group, name)
            while not (is_ready(free) if is_ready else self.ready(free) >= count):
                if self._stopping.wait(POLL_SECONDS):
                    raise Interrupted
                self._raise_failure(group, free)
                if time.monotonic() > deadline:
                    said = self._said(free)  # before the stacks are written there too
                    where = self._stacks(group, free)
                    raise StartError(f"gave up waiting for {', '.join(free)} to become ready{said}{where}")
        except BaseException:
            with suppress(NotRunning):  # what it says is less than what has failed
                self.stop(group, free)
            raise
        return free

    def stop(self, group: str, names: Collection[str]) -> int:
        """Drain these and wait until they have ended; returns how many had to be killed at their deadline."""
        self.drain(group, names)
        return self.await_end(group, names)

    def drain(self, group: str, names: Collection[str]) -> None:
        """Have these drain, and end by themselves or at supervisord's deadline (stopwaitsecs in supervisor.conf)."""
        for name in names:
            self._supervisor.stop(group, name)

    def await_end(self, group: str, names: Collection[str]) -> int:
        """Wait until these have ended; returns how many had to be killed. Should we be told to stop, they drain on."""
        killed = 0
        for name in names:
            while (slot := self._supervisor.process(group, name))["statename"] not in ENDED:
                if self._stopping.wait(POLL_SECONDS):
                    return killed
            killed += slot["exitstatus"] < 0
        return killed

    def _forget(self, names: list[str]) -> None:
        """Have the controller forget how others failed in these slots; without one there is nothing to forget."""
        with suppress(OSError):
            ask(self._run_dir, "forget", names)

    def _raise_failure(self, group: str, names: list[str]) -> None:
        """Raise what a process of these has died of. It reports before it ends, so its end is looked for first."""
        ended = [name for name in names if self._supervisor.process(group, name)["statename"] in FAILED]
        for failure in self.reports()["failed"]:
            name, how = failure["process"], failure.get("how")
            if name in names and (failure["reason"] or how):
                error = StartError(f"{name}: {failure['reason'] or f'{ENDED_EARLY}: {how}{self._said([name])}'}")
                error.exit_code = failure["exit_code"]
                raise error
        for name in ended:  # before it could report, or while the controller is away
            if time.monotonic() - self._ended_at.setdefault(name, time.monotonic()) > HOW_SECONDS:
                raise StartError(f"{name}: {ENDED_EARLY}{self._said([name])}")

    def _stacks(self, group: str, names: Collection[str]) -> str:
        """Return where these are, which are not ready; of gunicorn's those that it forks, which import TARGET."""
        asked, is_gunicorn = [], group == "gunicorn"
        for name in names:
            pid = self._supervisor.process(group, name)["pid"]
            pids = [child.pid for child in psutil.Process(pid).children()] if is_gunicorn and pid else [pid]
            asked += [Process(name, "server" if is_gunicorn else group, pid) for pid in pids]
        return "".join(f"\n{text}" for text in stacks(self._run_dir, None, asked))

    def _said(self, names: Collection[str]) -> str:
        lines = "\n".join(filter(None, (tail(self._log(name), self._logged[name]) for name in names)))
        return f"; the last lines:\n{lines}" if lines else "; it logged nothing"

    def _log(self, name: str) -> Path:
        return self._run_dir / "log" / f"{name}.log"
