"""Talks to supervisord, over XML-RPC on its 0600 Unix socket. It answers at once, or it stands still."""

import contextlib
import json
import socket
import xmlrpc.client
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from asgictl.errors import NotRunning, StartError

SOCKET = "supervisor.sock"
PID_FILE = "supervisord.pid"
ANSWER_SECONDS = 3.0  # that supervisord has for an answer
SERVING = {"STARTING", "RUNNING", "BACKOFF"}  # states of a process that runs, or is to
# Slots that only keep a listening socket open: see supervisor.conf.
HOLDERS = {"interface": "interface-32", "server": "server-128", "gunicorn": "server-08"}


class Stopping(NotRunning):
    """supervisord is there, but takes no more orders."""


class NotAnswering(NotRunning):
    """supervisord is there and stands still, as after SIGSTOP: what it supervises goes on, but nobody restarts it."""

    exit_code: int = StartError.exit_code


class Connection(UnixStreamHTTPConnection):  # type: ignore[misc]  # supervisor has no types
    """To supervisord; nothing on it takes longer than `timeout`, in seconds."""

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.socketfile)


class Supervisor:
    """The supervisord of one instance. Every call raises NotRunning when it is gone, NotAnswering when it is silent.

    answer_seconds: that it has for an answer.
    """

    def __init__(self, run_dir: Path, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._pid_file = run_dir / PID_FILE
        self._path = run_dir / SOCKET
        self._answer_seconds = answer_seconds

    def _transport(self) -> SupervisorTransport:
        """Return one for one call: a transport that failed once fails for ever."""
        transport = SupervisorTransport(None, None, f"unix://{self._path}")

        def connection() -> Connection:
            made = Connection("localhost", timeout=self._answer_seconds)
            made.socketfile = str(self._path)
            return made

        transport._get_connection = connection
        return transport

    def _call(self, method: str, *arguments: object) -> Any:
        transport = self._transport()
        proxy: Any = xmlrpc.client.ServerProxy("http://supervisord", transport=transport)
        try:
            return getattr(proxy, method)(*arguments)
        except (TimeoutError, BlockingIOError):  # the latter: too many wait for it already
            pid = self._noted_pid() or "unknown"
            raise NotAnswering(
                f"supervisord (pid {pid}) does not answer: it stands still, and nobody restarts what ends; kill -CONT"
                " it, or end the instance with asgictl stop"
            ) from None
        except (OSError, HTTPException) as error:
            raise NotRunning(f"supervisord does not answer: {error}") from error
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise Stopping("the instance is stopping") from fault
            raise
        except xmlrpc.client.ProtocolError as error:  # such as an address that was taken meanwhile
            raise StartError(f"supervisord failed ({error.errcode} {error.errmsg}); see supervisord.log") from error
        finally:
            transport.close()

    def processes(self) -> list[dict[str, Any]]:
        """Return every slot, running or not, as supervisord's getAllProcessInfo has it."""
        found: list[dict[str, Any]] = self._call("supervisor.getAllProcessInfo")
        return [slot for slot in found if slot["name"] != HOLDERS.get(slot["group"])]

    def started(self) -> list[dict[str, Any]]:
        """Return the slots that are not stopped: name, group, statename, pid, restarts, last_exit (see exits.py)."""
        try:
            found = json.loads(self._call("asgictl.slots"))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.UNKNOWN_METHOD:
                raise
            # One that was started before this release of asgictl was installed.
            return [slot for slot in self.processes() if slot["statename"] != "STOPPED"]
        return [slot for slot in found if slot["name"] != HOLDERS.get(slot["group"])]

    def process(self, group: str, process: str) -> dict[str, Any]:
        """Return one slot, as getProcessInfo has it: all of them take fifty times as long."""
        found: dict[str, Any] = self._call("supervisor.getProcessInfo", f"{group}:{process}")
        return found

    def start(self, group: str, process: str) -> None:
        """Start a slot without waiting for it; nothing happens when it runs."""
        self._order("startProcess", group, process, Faults.ALREADY_STARTED)

    def stop(self, group: str, process: str) -> None:
        """Have a slot drain, without waiting for it; nothing happens when it does not run."""
        self._order("stopProcess", group, process, Faults.NOT_RUNNING)

    def _order(self, method: str, group: str, process: str, done: int) -> None:
        try:
            self._call(f"supervisor.{method}", f"{group}:{process}", False)
        except xmlrpc.client.Fault as fault:  # such as a program that is not there, or no room for its log
            if fault.faultCode != done:
                raise StartError(f"{process}: supervisord says {fault.faultString}") from fault

    def answers(self) -> bool:
        """Whether supervisord is there; asking also has its loop turn now, so that it sees who has died.

        Raises NotAnswering.
        """
        try:
            self._call("supervisor.getState")
        except Stopping:
            return True
        except NotAnswering:
            raise
        except NotRunning:
            return False
        return True

    def pid(self) -> int:
        """Return supervisord's own process id; raises NotRunning."""
        return self._noted_pid() or int(self._call("supervisor.getPID"))  # somebody has removed its file

    def _noted_pid(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file.read_text())
        return 0

    def shutdown(self) -> None:
        """Begin to stop everything, in the reverse order of the priorities in supervisor.conf."""
        with contextlib.suppress(Stopping):
            self._call("supervisor.shutdown")
