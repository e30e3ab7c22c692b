"""How processes have ended that were not told to.

supervisord reaps them, so it alone knows; by itself it tells only its own log. It notes the last end in each slot, and
answers `asgictl.slots` on its XML-RPC socket: a controller that is new knows of what was before it.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from supervisor.states import ProcessStates, getProcessStateDescription

from asgictl.errors import FENCED_STATUS, TIMEOUT_STATUS

VMSTAT = Path("/proc/vmstat")
LOOK_SECONDS = 1.0  # between two looks at how often the kernel has killed for memory
MEMORY_SECONDS = 5.0  # that a process which it has killed may take to end: its memory goes first
WORDS = {FENCED_STATUS: "fenced: its lease expired", TIMEOUT_STATUS: "timeout: a handler ran too long"}


class Exit(NamedTuple):
    """signal: 0 unless one ended it. status: -1 when one did. at: by time.time(). is_memory: the kernel did."""

    pid: int
    signal: int
    status: int
    at: float
    is_memory: bool


class Exits:
    """Ends in each slot, by its name, since somebody last stopped it."""

    def __init__(self, now: Callable[[], float] = time.time, vmstat: Path = VMSTAT) -> None:
        self._now = now
        self._vmstat = vmstat
        self._looked_at = self._killed_at = 0.0
        self._kills = _kills(vmstat)
        self._last: dict[str, tuple[int, Exit]] = {}

    def look(self) -> None:
        """See whether the kernel has killed anything for memory; called at least once a second."""
        now = self._now()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._see(now)

    def _see(self, now: float) -> None:
        kills = _kills(self._vmstat)
        if kills > self._kills:
            self._killed_at = now
        self._kills = kills

    def note(self, name: str, pid: int, wait_status: int, *, is_told: bool) -> None:
        """A process has ended. wait_status: waitpid(2)'s. is_told: somebody has stopped it."""
        if is_told:
            self.forget(name)
            return
        now, status = self._now(), os.waitstatus_to_exitcode(wait_status)
        self._see(now)
        is_memory = status == -signal.SIGKILL and now - self._killed_at < MEMORY_SECONDS
        count, _ = self._last.get(name, (0, None))
        self._last[name] = count + 1, Exit(pid, max(-status, 0), max(status, -1), now, is_memory)

    def forget(self, name: str) -> None:
        """Somebody starts this slot anew."""
        self._last.pop(name, None)

    def seen(self) -> dict[str, dict[str, Any]]:
        """Return what of() does, by the name of each slot that has had an end."""
        return {name: self.of(name) for name in self._last}

    def of(self, name: str) -> dict[str, Any]:
        """Return how often processes have ended in a slot, and the last end, as JSON has it."""
        count, last = self._last.get(name, (0, None))
        return {"restarts": count, "last_exit": last and last._asdict()}


class Slots:
    """supervisord's interface `asgictl`."""

    def __init__(self, supervisord: Any) -> None:
        self._supervisord = supervisord

    def slots(self) -> str:
        """Return what has been started and is not stopped, as JSON: a twentieth of what getAllProcessInfo costs."""
        return json.dumps(
            [
                {"name": name, "group": group, "statename": getProcessStateDescription(state), "pid": process.pid}
                | exits.of(name)
                for group, each in self._supervisord.process_groups.items()
                for name, process in each.processes.items()
                if (state := process.get_state()) != ProcessStates.STOPPED
            ]
        )


def make_slots(supervisord: Any) -> Slots:
    """Make the interface, as supervisor.conf names it."""
    return Slots(supervisord)


def reason(end: Exit, *, is_silent: bool = False) -> str:
    """Return in words why a process has ended. is_silent: the controller has killed it for its silence."""
    if end.signal:
        name = signal_name(end.signal)
        if is_silent:
            return f"silent: it sent no heartbeat ({name})"
        return f"killed by the kernel: out of memory ({name})" if end.is_memory else name
    return WORDS.get(end.status, f"exit status {end.status}")


def signal_name(number: int) -> str:
    """Return a signal's name, "" for 0."""
    try:
        return signal.Signals(number).name if number else ""
    except ValueError:  # of real time
        return f"signal {number}"


def _kills(vmstat: Path) -> int:
    """Return how often the kernel has killed a process for memory since it was booted; 0 where it does not tell."""
    try:
        return int(vmstat.read_text().partition("\noom_kill ")[2].partition("\n")[0] or 0)
    except (OSError, ValueError):
        return 0


exits: Exits = Exits()  # of this supervisord
