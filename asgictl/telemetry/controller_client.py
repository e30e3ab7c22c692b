"""How a process tells the controller that it is ready, or why it never will be.

One line of JSON on the controller's Unix socket, which then stays open for as long as the process lives: the kernel
closes it when the process ends, however it ends. Once a second the process's figures follow, from a thread that waits
for nothing else: who is silent stands still, or runs C code that holds the GIL, and is ended by the controller
(silence.py).

A worker that nobody supervises has nobody to tell, and ends itself: faulthandler's watchdog needs no GIL. An interface
runs no code that could hold it, and has clients to say goodbye to when it stood still. Where there is a controller the
watchdog only writes the stacks of a process that is about to be ended.
"""

import atexit
import contextlib
import faulthandler
import json
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asgictl.errors import AsgictlError
from asgictl.telemetry.metrics import Figures

logger = logging.getLogger("asgictl.readiness")
SOCKET = "controller.sock"
ROLES = {"interface", "worker", "server"}
RECONNECT_SECONDS = 0.5
PUSH_SECONDS = 1.0
LOG_SECONDS = 0.5  # before its end, that a silent process has for its stacks
STDERR = 2
ASK_SECONDS = 2.0


def ask(run_dir: Path, question: str, processes: Sequence[str] = ()) -> Any:
    """Return the controller's answer: "reports" or "status". Raises OSError while it is away.

    "forget": how those that ran in these slots before have failed; then it is the reports.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, line.makefile("rb") as answer:
        line.settimeout(ASK_SECONDS)
        line.connect(str(run_dir / SOCKET))
        line.sendall(json.dumps({"ask": question} | ({"processes": processes} if processes else {})).encode() + b"\n")
        if not (text := answer.readline()).endswith(b"\n"):
            raise ConnectionResetError("the controller ended while it answered")
        return json.loads(text)


class Readiness:
    """This process's line to the controller. run_dir: None when the process runs alone.

    silent_seconds: for which nothing may come from here once it is ready; 0 for ever.
    """

    def __init__(self, run_dir: Path | None, role: str, process: str, silent_seconds: float = 0.0) -> None:
        self._run_dir = run_dir
        self._silent_seconds = silent_seconds if run_dir or role != "interface" else 0.0
        self._arming = threading.Lock()
        self._is_armed = False
        self._who = {"role": role, "process": process}
        self._socket: socket.socket | None = None
        self._figures = Figures()
        # A child that the application forks must not keep the line open after this process has died.
        os.register_at_fork(after_in_child=self._close)

    def starting(self) -> None:
        """Open the line: should it close before ready() or failed(), this process has died while it started."""
        self._report({"state": "starting"})

    def ready(self, figures: Callable[[], Figures] = Figures, **detail: object) -> None:
        """Report that this process serves from now on, and again to every controller that replaces this one.

        figures: called each second, from a thread of ours. detail goes into `asgictl status`.
        """
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        report = {"state": "ready", "file_limit": files, **detail}
        self._report(report)
        if self._silent_seconds:
            self._is_armed = True
            # A child that inherits the watchdog's locks without its thread could never end in order.
            os.register_at_fork(before=self._disarm, after_in_parent=self._rearm, after_in_child=self._leave_to_parent)
            atexit.register(self._finish)
            self._arm()  # now: the thread may never run, where code holds the GIL at once
        if self._run_dir is not None or self._silent_seconds:
            threading.Thread(target=self._keep, args=(report, figures), name="readiness", daemon=True).start()

    def failed(self, error: AsgictlError) -> None:
        """Report that this process cannot serve, and with which status it will exit."""
        self._report({"state": "failed", "reason": str(error), "exit_code": error.exit_code})

    def _report(self, report: dict[str, Any]) -> None:
        """Send a line. A controller that is away hears of it later, or is told of nothing worse than before."""
        if self._run_dir is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(PUSH_SECONDS)
                self._socket.connect(str(self._run_dir / SOCKET))
            line = {**self._who, "pid": os.getpid(), **report}
            self._socket.sendall(json.dumps(line).encode() + b"\n")
        except OSError as error:
            logger.warning("the controller is away: %s", error)
            self._close()

    def _keep(self, report: dict[str, Any], figures: Callable[[], Figures]) -> None:
        while True:
            with contextlib.suppress(OSError):  # reset counts as closed
                while self._socket is not None:
                    self._arm()
                    self._push(self._socket, self._counted(figures))
            self._close()
            self._arm()
            time.sleep(RECONNECT_SECONDS)
            self._report(report)

    def _counted(self, figures: Callable[[], Figures]) -> Figures:
        """Count. A fault of ours there must not make this process silent."""
        try:
            self._figures = figures()
        except Exception:
            logger.exception("the figures of this process cannot be had")
        return self._figures

    def _push(self, line: socket.socket, figures: Figures) -> None:
        """Say what was counted, then wait for the next time. Raises OSError when the controller has ended."""
        figures.cpu_seconds = time.process_time()
        # One that stands still reads no more, and would take a closed line for a death: what finds no room is lost.
        with contextlib.suppress(TimeoutError):
            line.sendall(b'{"figures":%b}\n' % msgspec.json.encode(figures))
            if not line.recv(1):  # it says nothing; it ends
                raise ConnectionResetError

    def _arm(self) -> None:
        """Have the watchdog act unless this is called again in time: end a process that is alone, with its stacks."""
        with self._arming:
            if self._is_armed:
                is_alone = self._run_dir is None
                seconds = self._silent_seconds - (0 if is_alone else LOG_SECONDS)
                faulthandler.dump_traceback_later(seconds, exit=is_alone, file=STDERR)

    def _disarm(self) -> None:
        self._arming.acquire()
        faulthandler.cancel_dump_traceback_later()

    def _rearm(self) -> None:
        self._arming.release()
        self._arm()

    def _leave_to_parent(self) -> None:
        self._is_armed = False
        self._arming.release()

    def _finish(self) -> None:
        """What the end takes is the supervisor's affair."""
        with self._arming:
            self._is_armed = False
            faulthandler.cancel_dump_traceback_later()
        if self._socket is not None:  # else a child's, or nobody hears
            self._report({"state": "ending"})

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
