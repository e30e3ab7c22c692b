"""How a process tells the controller that it is ready, or why it never will be.

One line of JSON on the controller's Unix socket, which then stays open for as long as the process lives: the kernel
closes it when the process ends, however it ends. A process that nobody supervises has nobody to tell.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

from asgictl.errors import AsgictlError

SOCKET = "controller.sock"


class Readiness:
    """This process's line to the controller. run_dir: None when the process runs alone."""

    def __init__(self, run_dir: Path | None, role: str, process: str) -> None:
        self._run_dir = run_dir
        self._role = role
        self._process = process
        self._socket: socket.socket | None = None

    def starting(self) -> None:
        """Open the line: should it close before ready() or failed(), this process has died while it started."""
        self._report({"state": "starting"})

    def ready(self, **detail: object) -> None:
        """Report that this process serves from now on; detail goes into `asgictl status`."""
        self._report({"state": "ready", **detail})

    def failed(self, error: AsgictlError) -> None:
        """Report that this process cannot serve, and with which status it will exit."""
        self._report({"state": "failed", "reason": str(error), "exit_code": error.exit_code})

    def _report(self, report: dict[str, Any]) -> None:
        if self._run_dir is None:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._run_dir / SOCKET))
            # A child that the application forks must not keep the line open after this process has died.
            os.register_at_fork(after_in_child=self._socket.close)
        line = {"role": self._role, "process": self._process, "pid": os.getpid(), **report}
        self._socket.sendall(json.dumps(line).encode() + b"\n")
