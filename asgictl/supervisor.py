"""Talks to supervisord, over XML-RPC on its 0600 Unix socket."""

import contextlib
import socket
import xmlrpc.client
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from asgictl.errors import NotRunning

SOCKET = "supervisor.sock"
PID_FILE = "supervisord.pid"
ANSWER_SECONDS = 3.0  # within which supervisord answers, or stands still
SERVING = {"STARTING", "RUNNING", "BACKOFF"}  # states of a process that runs, or is to
# Slots that only keep a listening socket open: see supervisor.conf.
HOLDERS = {"interface": "interface-32", "server": "server-128", "gunicorn": "server-02"}


class _Connection(HTTPConnection):
    """To supervisord; supervisor's own waits for ever."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Stopping(NotRunning):
    """supervisord is there, but takes no more orders."""


class Supervisor:
    """The supervisord of one instance. Every call raises NotRunning when it does not answer."""

    def __init__(self, run_dir: Path) -> None:
        self._pid_file = run_dir / PID_FILE
        self._url = f"unix://{run_dir / SOCKET}"

    def _call(self, method: str, *arguments: object) -> Any:
        # A transport that failed once fails for ever, so each call gets its own.
        transport = SupervisorTransport(None, None, self._url)
        transport._get_connection = partial(_Connection, self._url.removeprefix("unix://"))
        proxy: Any = xmlrpc.client.ServerProxy("http://supervisord", transport=transport).supervisor
        try:
            return getattr(proxy, method)(*arguments)
        except (OSError, HTTPException) as error:
            raise NotRunning(f"supervisord does not answer: {error}") from error
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise Stopping("the instance is stopping") from fault
            raise
        finally:
            transport.close()

    def processes(self) -> list[dict[str, Any]]:
        """Return every slot, running or not, as supervisord's getAllProcessInfo has it."""
        found: list[dict[str, Any]] = self._call("getAllProcessInfo")
        return [slot for slot in found if slot["name"] != HOLDERS.get(slot["group"])]

    def process(self, group: str, process: str) -> dict[str, Any]:
        """Return one slot, as getProcessInfo has it: all of them take fifty times as long."""
        found: dict[str, Any] = self._call("getProcessInfo", f"{group}:{process}")
        return found

    def start(self, group: str, process: str) -> None:
        """Start a slot without waiting for it; nothing happens when it runs."""
        self._order("startProcess", group, process, Faults.ALREADY_STARTED)

    def stop(self, group: str, process: str) -> None:
        """Have a slot drain, without waiting for it; nothing happens when it does not run."""
        self._order("stopProcess", group, process, Faults.NOT_RUNNING)

    def _order(self, method: str, group: str, process: str, done: int) -> None:
        try:
            self._call(method, f"{group}:{process}", False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != done:
                raise

    def answers(self) -> bool:
        """Whether supervisord is there; asking also has its loop turn now, so that it sees who has died."""
        try:
            self._call("getState")
        except Stopping:
            return True
        except NotRunning:
            return False
        return True

    def pid(self) -> int:
        """Return supervisord's own process id; raises NotRunning."""
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError) as error:
            raise NotRunning("supervisord has left no process id") from error

    def shutdown(self) -> None:
        """Begin to stop everything, in the reverse order of the priorities in supervisor.conf."""
        with contextlib.suppress(Stopping):
            self._call("shutdown")
