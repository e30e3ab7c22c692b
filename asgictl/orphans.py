"""Processes that a killed supervisord has left behind: they carry the run directory in their environment or title."""

import os
from pathlib import Path

import psutil

FRONT = {"interface", "server"}  # end first, so that their last events find workers
FRONT_SECONDS = 40.0  # more than an interface takes to drain
BACK_SECONDS = 10.0


def orphans(run_dir: Path) -> list[psutil.Process]:
    """Return the processes of an instance, but for this one and those that it runs in."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and _belongs(process, run_dir)]


def _belongs(process: psutil.Process, run_dir: Path) -> bool:
    try:
        if process.environ().get("ASGICTL_RUN_DIR") == str(run_dir):
            return True
        return any(f"{run_dir}/redis.sock" in word for word in process.cmdline())  # Redis's title overwrites the rest
    except psutil.Error:  # it has ended, or is somebody else's
        return False


def end(processes: list[psutil.Process], front_seconds: float = FRONT_SECONDS, seconds: float = BACK_SECONDS) -> None:
    """Have servers drain and end, then the others, then kill what is left."""
    _terminate([process for process in processes if _is_in_front(process)], front_seconds)
    for process in _terminate(processes, seconds):
        process.kill()


def _terminate(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Terminate these and wait; returns what has not ended."""
    told = [process for process in processes if process.is_running()]
    for process in told:
        process.terminate()
    left: list[psutil.Process] = psutil.wait_procs(told, timeout=seconds)[1]
    return left


def _is_in_front(process: psutil.Process) -> bool:
    try:
        return any(word in FRONT or "gunicorn" in word for word in process.cmdline())
    except psutil.Error:
        return False
