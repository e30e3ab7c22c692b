"""Redis Sentinel on loopback: two nodes, one the replica of the other, and three Sentinels that watch them."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.conftest import binary_of, free_port, until

SERVICE = "events"
DOWN_MILLISECONDS = 1000  # after which a node that says nothing is down
FAILOVER_MILLISECONDS = 2000  # that a failover has; the next one begins at the earliest twice as long after it
SENTINELS, NODES = 3, 2


class Watched:
    """The nodes and their Sentinels. url: of the service."""

    def __init__(self, directory: Path, kind: str = "valkey-8") -> None:
        self._binary = binary_of(kind)
        self._directory = directory
        self.ports = [free_port() for _ in range(NODES)]
        self.sentinel_ports = [free_port() for _ in range(SENTINELS)]
        self.nodes = [redis.Redis(port=port, socket_timeout=10) for port in self.ports]
        self.sentinels = [redis.Redis(port=port) for port in self.sentinel_ports]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinel_ports)}/{SERVICE}"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}  # by port
        self.start(0)
        self.start(1, replica_of=0)
        for port in self.sentinel_ports:
            (directory / f"{port}.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports[0]} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_MILLISECONDS}\n"
                f"sentinel failover-timeout {SERVICE} {FAILOVER_MILLISECONDS}\n"
            )
            self._run(port, f"{directory}/{port}.conf", "--sentinel")
        until(self.is_whole, "the Sentinels know each other and the replica")

    def _run(self, port: int, *arguments: str) -> None:
        command = [self._binary, *arguments]
        self.processes[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self._directory)

    def start(self, node: int, replica_of: int | None = None) -> None:
        """Start a node, empty; as a replica it is whole once it has what its master has."""
        port = self.ports[node]
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"]
        options += ["--dir", str(self._directory), "--dbfilename", f"{port}.rdb"]
        if replica_of is not None:
            options += ["--replicaof", f"127.0.0.1 {self.ports[replica_of]}"]
        self._run(port, *options)
        until(lambda: _answers(self.nodes[node]), "a node answers")
        if replica_of is not None:
            until(lambda: self.nodes[node].info("replication").get("master_link_status") == "up", "it follows")

    def master(self) -> int:
        """Return which node the Sentinels name, -1 while they are not of one mind."""
        named = {self._named_by(each) for each in self.sentinels}
        return self.ports.index(named.pop()) if len(named) == 1 else -1

    def _named_by(self, sentinel: Any) -> int:
        found = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(found[1]) if found else 0

    def is_whole(self) -> bool:
        """Whether every Sentinel knows the others, and sees the replica follow: from then on a failover can succeed."""
        return all(map(self._knows_all, self.sentinels))

    def _knows_all(self, sentinel: Any) -> bool:
        with suppress(redis.RedisError):
            state = sentinel.execute_command("SENTINEL MASTER", SERVICE)
            replicas = sentinel.execute_command("SENTINEL SLAVES", SERVICE)
            follow = [each for each in replicas if each["master-link-status"] == "ok" and not each["is_disconnected"]]
            return state["num-other-sentinels"] == SENTINELS - 1 and len(follow) == NODES - 1 and not state["is_sdown"]
        return False

    def signal(self, node: int, number: signal.Signals) -> None:
        """Send a node a signal."""
        os.kill(self.processes[self.ports[node]].pid, number)

    def kill(self, node: int) -> None:
        """Kill a node, and wait until it is gone."""
        process = self.processes.pop(self.ports[node])
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for client in (*self.nodes, *self.sentinels):
            client.close()


def _answers(client: Any) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


@contextmanager
def watched(kind: str = "valkey-8") -> Iterator[Watched]:
    """Run them in a directory of their own."""
    directory = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    made = Watched(directory, kind)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)
