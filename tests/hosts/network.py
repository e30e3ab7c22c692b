"""Hosts as network namespaces: each has an address of its own on a switch that only they share.

What one host sends to another is lost once it knows that host by a card's address that nobody has: silently, one way,
and whichever connections there are, as behind a firewall that drops. It takes iproute2 alone.
"""

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NOBODY = "02:00:00:00:00:00"  # a card's address
ADDRESS = "10.213.0.{}"  # in the hosts' namespaces alone
RESTART_SECONDS = 1.0  # as RestartSec of deploy/systemd
STOP_SECONDS = 60.0
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    """Run ip(8); raises RuntimeError with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Host:
    """A host and the process that it keeps running, as systemd does with Restart=always."""

    def __init__(self, space: str, address: str) -> None:
        self.space = space
        self.address = address
        self.exits: list[int] = []  # of its process
        self._ends = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def keep(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> None:
        """Run a command, and run it again once it has ended."""
        in_space = ["ip", "netns", "exec", self.space, *command]

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    in_space, env=environment, cwd=directory, stdout=output, stderr=output, start_new_session=True
                )

        def run() -> None:
            while not self._ends.is_set():
                self._process = start()
                self.exits.append(self._process.wait())
                self._ends.wait(RESTART_SECONDS)

        self._keeper = threading.Thread(target=run)
        self._keeper.start()

    def end(self, how: signal.Signals) -> None:
        """End its process for good."""
        self._ends.set()
        if self._process is not None and self._keeper is not None:
            self._process.send_signal(how)
            self._keeper.join(STOP_SECONDS)
            if self._keeper.is_alive():
                self._process.kill()
                self._keeper.join()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread, and the threads and processes that it starts meanwhile, be on the host."""
        with Path("/proc/thread-self/ns/net").open("rb") as back, Path("/run/netns", self.space).open("rb") as space:
            _enter(space.fileno())
            try:
                yield
            finally:
                _enter(back.fileno())


def _enter(space: int) -> None:
    if LIBC.setns(space, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Some hosts and the switch between them; close() removes them."""

    def __init__(self, *names: str) -> None:
        self._mark = f"asgictl-{os.getpid()}"
        self._switch = f"{self._mark}-switch"
        self.hosts: dict[str, Host] = {}
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "switch", "up", "type", "bridge")
        for name in names:
            self._add(name)

    def _add(self, name: str) -> None:
        host = Host(f"{self._mark}-{name}", ADDRESS.format(len(self.hosts) + 1))
        ip("netns", "add", host.space)
        self.hosts[name] = host
        ip("link", "add", name, "netns", self._switch, "type", "veth", "peer", "name", "card", "netns", host.space)
        ip("-n", self._switch, "link", "set", name, "master", "switch", "up")
        ip("-n", host.space, "link", "set", "lo", "up")
        ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "card")
        ip("-n", host.space, "link", "set", "card", "up")

    def lose(self, sender: Host, receiver: Host) -> None:
        """Lose all that one host sends to another, from now on."""
        card = ("lladdr", NOBODY, "dev", "card", "nud", "permanent")
        ip("-n", sender.space, "neighbour", "replace", receiver.address, *card)

    def mend(self, sender: Host, receiver: Host) -> None:
        """Lose no more."""
        ip("-n", sender.space, "neighbour", "del", receiver.address, "dev", "card")

    def unplug(self, host: Host) -> None:
        """Take the host's link away; who speaks to it hears nothing."""
        ip("-n", host.space, "link", "set", "card", "down")

    def plug(self, host: Host) -> None:
        """Give it back."""
        ip("-n", host.space, "link", "set", "card", "up")

    def close(self) -> None:
        """End every process and remove every namespace."""
        for host in reversed(self.hosts.values()):
            host.end(signal.SIGTERM)
        for host in self.hosts.values():
            ip("netns", "del", host.space)
        ip("netns", "del", self._switch)
