"""What runs of an instance whose supervisord cannot be asked: it was killed, or its socket was removed."""

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

from asgictl.config import Bind
from asgictl.control.slots import POLL_SECONDS, Interrupted
from asgictl.errors import AddressError, NotRunning
from asgictl.machine import processes
from asgictl.machine.processes import asked, is_alive, is_supervisor
from asgictl.machine.run_dir import not_found

FREE_SECONDS = 10.0  # in which an address is free once those that listened on it have ended
NAMED = 8  # processes that a message names


class Remains:
    """The processes of an instance, as their environments tell: no file of the run directory is needed.

    run_dir: its path. bind: the Unix socket on which they serve, or None. supervisord: those of them that live.
    """

    def __init__(self, run_dir: Path) -> None:
        ours = filter(_is_of_our_user, processes.orphans(run_dir))
        found: dict[psutil.Process, dict[str, str]] = {process: asked(process.environ, {}) for process in ours}
        self.processes: list[psutil.Process] = list(found)
        self.supervisord: list[psutil.Process] = [
            process for process in found if is_supervisor(process) and is_alive(process)
        ]
        sockets = {environment.get("ASGICTL_SOCKET", "") for environment in found.values()}
        paths = [socket.removeprefix("unix://") for socket in sorted(sockets) if socket.startswith("unix://")]
        self.bind: Bind | None = Bind(f"unix:{paths[0]}") if paths else None
        self._names = [
            f"{environment.get('SUPERVISOR_PROCESS_NAME') or _name(process)} ({process.pid})"
            for process, environment in found.items()
        ]

    def __len__(self) -> int:
        return len(self.processes)

    def __str__(self) -> str:
        more = f" and {len(self) - NAMED} more" if len(self) > NAMED else ""
        return ", ".join(self._names[:NAMED]) + more

    def mute(self, run_dir: Path) -> str:
        """Say that a supervisord lives which does not answer, and what to do."""
        pids = ", ".join(str(process.pid) for process in self.supervisord)
        return f"supervisord ({pids}) does not answer, as when files in {run_dir} were removed; asgictl stop ends it"

    def end(self) -> int:
        """End them in order, and remove their Unix socket; returns how many had to be killed.

        A supervisord that lives ends the others itself, and would start again what somebody else has ended. One that
        is stopped cannot: it is killed first.
        """
        orderly = [each for each in self.supervisord if asked(each.status, "") != psutil.STATUS_STOPPED]
        processes.terminate(orderly)
        processes.wait(orderly, processes.FRONT_SECONDS + processes.BACK_SECONDS)
        is_late = any(map(is_alive, orderly))
        killed = processes.end(self.processes, *((0.0, 0.0) if is_late else ()))
        if self.bind:
            self.bind.release()
        return killed

    def check(self, bind: Bind) -> None:
        """Raise AddressError unless it can be listened on now, or could be once these have ended; changes nothing."""
        try:
            bind.check()
        except AddressError:
            pids, ours = listeners(bind), {process.pid for process in self.processes}
            if not pids or pids - ours:
                raise


def await_free(bind: Bind, stopping: threading.Event) -> None:
    """Wait until an address can be listened on: the kernel may be slower than the end of those that did.

    Raises AddressError after FREE_SECONDS, and Interrupted once `stopping` is set.
    """
    deadline = time.monotonic() + FREE_SECONDS
    while True:
        try:
            return bind.check()
        except AddressError:
            if stopping.wait(POLL_SECONDS):
                raise Interrupted from None
            if time.monotonic() > deadline:
                raise


def listeners(bind: Bind) -> set[int]:
    """Return the processes that hold a socket which listens on this port, or Unix socket; perhaps not others' users'.

    psutil names only one process for each socket when it is asked for all, so each process is asked.
    """
    path = bind.text.removeprefix("unix:")
    port = 0 if path != bind.text else int(bind.text.rpartition(":")[2])
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            held = [each for each in process.net_connections("inet" if port else "unix") if each.laddr]
            if port:
                held = [each for each in held if each.status == psutil.CONN_LISTEN]
            if any(each.laddr.port == port if port else each.laddr == path for each in held):
                found.add(process.pid)
    return found


def not_running(name: str, run_dir: Path) -> NotRunning:
    """Return what is to be raised where supervisord does not answer: it says what runs nevertheless."""
    remains = Remains(run_dir)
    if not remains:
        return not_found(name)
    if remains.supervisord:
        return NotRunning(f"instance {name!r} does not answer: {remains.mute(run_dir)}; still serving: {remains}")
    return NotRunning(
        f"no instance {name!r} is running; its supervisord has died; asgictl start or stop ends its processes:"
        f" {remains}"
    )


def _is_of_our_user(process: psutil.Process) -> bool:
    """Anybody may give a process of theirs such an environment: it would have us remove what it names."""
    return asked(lambda: bool(process.uids().real == os.getuid()), False)


def _name(process: psutil.Process) -> str:
    return "supervisord" if is_supervisor(process) else asked(process.name, "ended")
