"""One line for each process that ended although nobody asked it to."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asgictl.control.exits import Exit, Exits, reason
from asgictl.control.supervisord_client import Supervisor
from asgictl.control.what_ran import Ran
from asgictl.errors import NotRunning
from asgictl.machine.processes import take_exit

EXIT_SECONDS = 2.0  # that supervisord has to notice an end
POLL_SECONDS = 0.05
STOPPED = "was stopped before it had finished"

servers: Exits = Exits()  # of gunicorn; look() is to be called each second


def how_ended(run_dir: Path, process: str, pid: int, *, was_ready: bool) -> str:
    """Return how a process has ended, as "died: SIGSEGV", once supervisord or gunicorn has noticed."""
    deadline, supervisor, status = time.monotonic() + EXIT_SECONDS, Supervisor(run_dir), None
    while True:
        status = take_exit(run_dir, pid) if status is None else status  # of gunicorn's
        with suppress(NotRunning):
            slot = next((each for each in supervisor.started() if each["name"] == process), None)
            is_stopped = slot is None or slot["statename"] == "STOPPING"
            # One that was not ready yet may have been stopped for how it ended.
            if is_stopped and (was_ready or (slot is None and status is None)):
                return STOPPED
            if slot and (last := slot.get("last_exit")) and last["pid"] == pid:
                return f"died: {reason(Exit(**last))}"
        if status is not None:
            servers.note(process, pid, status, is_told=False)
            return f"died: {reason(Exit(**servers.of(process)['last_exit']))}"
        if time.monotonic() > deadline:
            return "died"
        time.sleep(POLL_SECONDS)


def death(report: dict[str, Any], how: str, ran: Sequence[Ran]) -> str:
    """Return the line of a process's death. report: the last that it has sent. how: as "was killed by SIGSEGV"."""
    if report["state"] == "failed":
        how = f"could not start: {report['reason'].strip().rpartition(chr(10))[2]}"
    elif report["state"] == "starting":
        how += " before it was ready"
    events = ", ".join(f"{each.name} ({each.fate})" if each.fate else each.name for each in ran)
    return f"{report['process']} (pid {report['pid']}) {how}" + (f"; it ran {events}" if ran else "")
