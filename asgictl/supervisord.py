"""supervisord, with two mends: its TCP sockets may be IPv6's too, and no signal to a process that starts is lost."""

import os
import signal
import socket
from typing import Any

from supervisor import supervisord
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


if __name__ == "__main__":
    supervisord.ServerOptions = Options
    supervisord.main()
