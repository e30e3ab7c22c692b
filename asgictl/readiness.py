"""How a process tells the controller that it is ready, or why it never will be.

One line of JSON on the controller's Unix socket, which then stays open for as long as the process lives: the kernel
closes it when the process ends, however it ends. Once a second the process's figures follow. A process that nobody
supervises has nobody to tell.
"""

import contextlib
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
from asgictl.figures import Figures

logger = logging.getLogger("asgictl.readiness")
SOCKET = "controller.sock"
ROLES = {"interface", "worker", "server"}
RECONNECT_SECONDS = 0.5
PUSH_SECONDS = 1.0
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
    """This process's line to the controller. run_dir: None when the process runs alone."""

    def __init__(self, run_dir: Path | None, role: str, process: str) -> None:
        self._run_dir = run_dir
        self._who = {"role": role, "process": process}
        self._socket: socket.socket | None = None
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
        if self._run_dir is not None:
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
                self._socket.connect(str(self._run_dir / SOCKET))
            line = {**self._who, "pid": os.getpid(), **report}
            self._socket.sendall(json.dumps(line).encode() + b"\n")
        except OSError as error:
            logger.warning("the controller is away: %s", error)
            self._close()

    def _keep(self, report: dict[str, Any], figures: Callable[[], Figures]) -> None:
        while True:
            with contextlib.suppress(OSError):  # reset counts as closed, and so does a controller that reads no more
                while self._socket is not None:
                    now = figures()
                    now.cpu_seconds = time.process_time()
                    self._socket.settimeout(PUSH_SECONDS)
                    self._socket.sendall(b'{"figures":%b}\n' % msgspec.json.encode(now))
                    with contextlib.suppress(TimeoutError):
                        if not self._socket.recv(1):  # the controller says nothing; it ends
                            break
            self._close()
            time.sleep(RECONNECT_SECONDS)
            self._report(report)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
