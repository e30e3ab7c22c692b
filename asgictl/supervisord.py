"""supervisord, with three mends.

Its TCP sockets may be IPv6's too; no signal to a process that starts is lost; and a disk without room costs lines of
logs, never supervisord: by itself it would end on the error that it meets while it tells of another.
"""

import os
import signal
import socket
from contextlib import suppress
from typing import Any

from supervisor import loggers, supervisord
from supervisor.datatypes import InetStreamSocketConfig
from supervisor.options import ServerOptions

from asgictl.configuration import Bind

# By supervisord itself.
CAUGHT = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2}


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
    spare_logs()
    supervisord.ServerOptions = Options
    supervisord.main()
