"""supervisord, with five mends.

Its TCP sockets may be IPv6's too; no signal to a process that starts is lost; what a process leaves behind ends; how a
process has ended is noted; and a disk without room costs lines of logs, never supervisord: by itself it would end on
the error that it meets while it tells of another.
"""

import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from supervisor import loggers, supervisord
from supervisor.datatypes import InetStreamSocketConfig
from supervisor.options import ServerOptions

from asgictl.config import Bind
from asgictl.control.exits import exits
from asgictl.machine.titles import set_title

# By supervisord itself.
CAUGHT = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2}

GROUP_SECONDS = 1.0  # that what a process has left has to end


class Groups:
    """Process groups whose leaders have ended: what is left in them is told to end, and killed after a while."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}

    def add(self, group: int) -> None:
        """Begin to end one. A group's number is taken for as long as anything is in it."""
        with suppress(OSError):  # nothing is
            os.killpg(group, signal.SIGTERM)
            self._due[group] = time.monotonic() + GROUP_SECONDS

    def kill(self) -> None:
        """Kill those whose time is over."""
        for group in [group for group, due in self._due.items() if due <= time.monotonic()]:
            del self._due[group]
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)

    def finish(self) -> None:
        """Kill all of them once their time is over."""
        if self._due:
            time.sleep(GROUP_SECONDS)
            self.kill()


groups: Groups = Groups()


class IPv6Socket(InetStreamSocketConfig):  # type: ignore[misc]  # supervisor has no types
    """The listening socket of an [fcgi-program]; host: in brackets."""

    def create_and_bind(self) -> socket.socket:
        """Return it, bound."""
        return Bind(f"{self.host}:{self.port}").listen()


class Options(ServerOptions):  # type: ignore[misc]
    """Those of supervisord, where `socket = tcp://[::1]:8000` is one too."""

    def fork(self) -> int:
        """Fork. A child that is told to end before it runs its program would note it for supervisord: it ends."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        try:
            pid = os.fork()
            if not pid:
                for number in CAUGHT:
                    signal.signal(number, signal.SIG_DFL)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def waitpid(self) -> tuple[int | None, int | None]:
        """Return who has ended, and how; called at least once a second."""
        pid, status = super().waitpid()
        if pid and not (os.WIFSIGNALED(status) and self._has_servers(pid)):
            groups.add(pid)
        if pid and (process := self.pidhistory.get(pid)):
            exits.note(process.config.name, pid, status, is_told=process.killing)
        groups.kill()
        exits.look()
        return pid, status

    def _has_servers(self, pid: int) -> bool:
        """Whether this is gunicorn, whose servers drain when it is killed, and end what they have started."""
        process = self.pidhistory.get(pid)
        return process is not None and process.group.config.name == "gunicorn"

    def parse_fcgi_socket(self, sock: str, *others: Any) -> Any:
        """Return the configuration of a socket, as its super does; the last of others is the backlog."""
        if not sock.startswith("tcp://["):
            return super().parse_fcgi_socket(sock, *others)
        host, _, port = sock.removeprefix("tcp://").rpartition(":")
        return IPv6Socket(host, port, backlog=others[-1])


def spare_logs() -> None:
    """Have every handler of logs lose what it cannot write, and go on once it can."""
    rollover, close = loggers.RotatingFileHandler.doRollover, loggers.Handler.close

    def roll_over(handler: Any) -> None:
        try:
            rollover(handler)
        except (OSError, ValueError):  # no room, or the file was closed in the midst of the one before
            with suppress(OSError):
                if handler.stream.closed:
                    handler.stream = open(handler.baseFilename, "ab")  # noqa: SIM115 - it stays open

    def close_all_the_same(handler: Any) -> None:
        try:
            close(handler)
        except OSError:  # what is buffered is lost; the file is closed
            handler.closed = True

    loggers.Handler.handleError = lambda _handler: None
    loggers.Handler.close = close_all_the_same
    loggers.RotatingFileHandler.doRollover = roll_over


if __name__ == "__main__":
    set_title("supervisord", os.environ.get("ASGICTL_NAME", ""))
    spare_logs()
    supervisord.ServerOptions = Options
    try:
        supervisord.main()
    finally:
        groups.finish()
