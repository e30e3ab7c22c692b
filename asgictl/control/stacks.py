"""Where the threads of processes are: each writes its stacks to its log when SIGURG asks for them.

faulthandler answers in C, within the signal's handler: code that holds the GIL does not keep it from that. Who holds
the GIL, py-spy knows, where it is installed and may look.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from asgictl.control.log_tail import size
from asgictl.control.what_ran import what_ran
from asgictl.telemetry.logs import STACKS

ROLES = {"interface", "worker", "server", "controller"}
ANSWER_SECONDS = 2.0  # that a process has to write its stacks
QUIET_SECONDS = 0.2  # without a further byte, after which they are whole
POLL_SECONDS = 0.02
SPY_SECONDS = 5.0  # that py-spy has
NOTHING = "  no stacks: the process is stopped (SIGSTOP), or has just started"
_is_stack = re.compile(r'(Current thread|Thread) 0x|  File "|  \.\.\.').match


class Process(NamedTuple):
    """As status.py has them; name: "server-00/123" of one of gunicorn's."""

    name: str
    role: str
    pid: int


def stacks(run_dir: Path, redis_url: str | None, processes: Iterable[Process]) -> Iterator[str]:
    """Yield a text for each process that runs Python; those are asked together that have logs of their own."""
    waiting = [each for each in processes if each.role in ROLES and each.pid]
    while waiting:
        logs = {_log(run_dir, each): each for each in reversed(waiting)}  # servers of one gunicorn share a log
        waiting = [each for each in waiting if each not in logs.values()]
        sizes = {log: size(log) for log in logs}
        heads = [_head(each, run_dir, redis_url) for each in logs.values()]
        for each in logs.values():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(each.pid, STACKS)
        for head, (log, each) in sorted(zip(heads, logs.items(), strict=True)):
            yield "\n".join([head, *(_written(log, sizes[log]) or [NOTHING]), *_gil(each.pid)])


def _log(run_dir: Path, process: Process) -> Path:
    return run_dir / "log" / f"{process.name.partition('/')[0]}.log"


def _head(process: Process, run_dir: Path, redis_url: str | None) -> str:
    names = ", ".join(ran.name for ran in what_ran(run_dir, process.pid, redis_url))
    return f"{process.name} (pid {process.pid})" + (f" runs {names}" if names else "")


def _written(log: Path, since: int) -> list[str]:
    """Return the stacks behind so many bytes of a log, without what else was written meanwhile."""
    deadline, length, grown_at = time.monotonic() + ANSWER_SECONDS, since, 0.0
    while (now := time.monotonic()) < deadline and not (grown_at and now - grown_at > QUIET_SECONDS):
        if (new := size(log)) != length:
            length, grown_at = new, now
        time.sleep(POLL_SECONDS)
    with log.open(errors="replace") as file:
        file.seek(since if since <= length else 0)  # it was rotated
        return [f"  {line}" for line in file.read().splitlines() if _is_stack(line)]


def _gil(pid: int) -> list[str]:
    """Return a line that says who holds the GIL; none when nobody does, or py-spy cannot say."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if not (spy := shutil.which("py-spy", path=places)):
        return []
    command = [spy, "dump", "--pid", str(pid)]
    try:
        seen = subprocess.run(command, capture_output=True, text=True, timeout=SPY_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return []
    holder = re.search(r"\+gil\): (.*)\n\s*(.*)", seen)
    return [f"  the GIL is held by {holder[1]}, in {holder[2]}"] if holder else []
