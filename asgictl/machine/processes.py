"""Processes that outlive what answers for them, and how they end.

What a killed supervisord has left is known by the run directory in its environment or title. What handlers have started
is known by its process, and after that one's end by its process group, whose leader every supervised process is.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
FRONT = {"interface", "server"}  # end first, so that their last events find workers
FRONT_SECONDS = 40.0  # more than an interface takes to drain
BACK_SECONDS = 10.0
CHILDREN_SECONDS = 3.0  # that what handlers have started has to end, once its process has drained
POLL_SECONDS = 0.05
NOTE_SECONDS = 10.0  # after which a note that nobody has taken is removed
TRACKER = "multiprocessing.resource_tracker"  # ends by itself, after its process, and cleans up then


def asked(question: Callable[[], T], otherwise: T) -> T:
    """Return what psutil answers of a process; `otherwise` once it has ended, or when it is somebody else's."""
    try:
        return question()
    except psutil.Error:
        return otherwise


def orphans(run_dir: Path) -> list[psutil.Process]:
    """Return the processes of an instance, but for this one and those that it runs in."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and _belongs(process, run_dir)]


def _belongs(process: psutil.Process, run_dir: Path) -> bool:
    try:
        is_named = process.environ().get("ASGICTL_RUN_DIR") == str(run_dir)
        if not is_named:  # Redis's title overwrites its environment
            title = rf"unixsocket[: ]{re.escape(str(run_dir))}/redis\.sock( |$)"
            is_named = re.search(title, " ".join(process.cmdline())) is not None
        return is_named and _shares(process, run_dir.parent.parent)
    except psutil.Error:  # it has ended, or is somebody else's
        return False


def _shares(process: psutil.Process, directory: Path) -> bool:
    """Whether a directory is the same for a process: one in a container has another under this name."""
    try:
        return os.path.samestat(os.stat(f"/proc/{process.pid}/root{directory}"), directory.stat())
    except OSError:  # no Linux, or the directory is gone
        return True


def end(
    processes: Sequence[psutil.Process], front_seconds: float = FRONT_SECONDS, seconds: float = BACK_SECONDS
) -> int:
    """Have servers drain and end, then the others, Redis last; then kill what is left with its process groups.

    A supervisord among them is killed first: it has not answered, and would start again what ends. Returns how many
    processes had to be killed.
    """
    killed = kill([process for process in processes if is_supervisor(process)])
    front = [process for process in processes if is_in_front(process)]
    behind = [process for process in processes if not (is_in_front(process) or _is_redis(process))]
    for some, limit in ((front, front_seconds), (behind, seconds), (processes, min(seconds, CHILDREN_SECONDS))):
        terminate(some)
        wait(some, limit)
        psutil.wait_procs(some, timeout=0)  # reaps those that are ours
    return killed + kill(processes)


def end_children(seconds: float = CHILDREN_SECONDS) -> None:
    """End what this process's handlers have started: multiprocessing would wait for it when this process exits."""
    children = [
        each for each in psutil.Process().children(recursive=True) if not any(TRACKER in word for word in _words(each))
    ]
    terminate(children)
    for child in psutil.wait_procs(children, timeout=seconds)[1]:
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            child.kill()


def note_exit(run_dir: Path, pid: int) -> None:
    """Note how a child of this process has ended, if it has, for another process; reaps nothing."""
    with suppress(OSError):  # it is no child any more; a full disk
        if ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            for note in run_dir.glob("exit-*"):
                if time.time() - note.stat().st_mtime > NOTE_SECONDS:
                    note.unlink()
            status = ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
            (run_dir / f"exit-{pid}").write_text(f"{status}\n")


def take_exit(run_dir: Path, pid: int) -> int | None:
    """Return how a process has ended, as waitpid(2) has it, and remove the note; None where there is none yet."""
    note = run_dir / f"exit-{pid}"
    with suppress(OSError):
        if (text := note.read_text()).endswith("\n"):
            note.unlink()
            return int(text)
    return None


def terminate(processes: Sequence[psutil.Process]) -> None:
    """Ask these to end."""
    for process in processes:
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            process.terminate()


def wait(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until these have ended. A zombie has: whoever is to reap it may stand still."""
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def kill(processes: Sequence[psutil.Process]) -> int:
    """Kill those of these that live, and their process groups, but never ours; returns how many processes that were."""
    doomed = set(filter(is_alive, processes))
    groups = _groups(doomed) - _groups([psutil.Process(), *psutil.Process().parents()])
    if groups:
        doomed |= {each for each in psutil.process_iter() if _group(each) in groups and is_alive(each)}
    for process in doomed:
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            process.kill()
    wait(list(doomed), BACK_SECONDS)
    return len(doomed)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs: a zombie does not."""
    return asked(lambda: bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE), False)


def is_in_front(process: psutil.Process) -> bool:
    """Whether clients are connected to it."""
    words = _words(process)
    return any(word.partition("-")[0] in FRONT or "gunicorn" in word or "asgictl.inprocess" in word for word in words)


def is_supervisor(process: psutil.Process) -> bool:
    """Whether it is a supervisord of ours."""
    words = _words(process)
    return "asgictl.control.supervisord_main" in words or words[:2] == ["asgictl:", "supervisord"]  # its title


def _is_redis(process: psutil.Process) -> bool:
    return any("/redis.sock" in word for word in _words(process))


def _groups(processes: Iterable[psutil.Process]) -> set[int]:
    return {group for each in processes if (group := _group(each))}


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:  # it has ended, or is somebody else's
        return None


def _words(process: psutil.Process) -> list[str]:
    return " ".join(asked(process.cmdline, [])).split()
