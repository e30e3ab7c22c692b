"""Two interfaces, two workers and Redis, each on a host of its own, and a host for the clients."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import living
from tests.conftest import Machine, binary_of, until
from tests.hosts.network import Host, Network

ROOT = Path(__file__).parents[2]
TARGET = "tests.hosts.application:app"
PORT = 8000


class Site:
    """What runs on which host."""

    def __init__(self, network: Network, machine: Machine) -> None:
        self.network = network
        self.redis, self.client = network.hosts["redis"], network.hosts["client"]
        self.interfaces = [network.hosts[name] for name in ("interface1", "interface2")]
        self.workers = [network.hosts[name] for name in ("worker1", "worker2")]
        self.redis_url = f"redis://{self.redis.address}:6379"
        self._machine = machine

    def start(self) -> None:
        """Start everything; returns once both interfaces are answered by a worker."""
        options = ("--port", "6379", "--bind", self.redis.address, "--protected-mode", "no", "--save", "")
        self._keep("redis", binary_of("valkey-8"), *options, "--dir", str(self._machine.runtime))
        self.until_living("worker", 0)
        for name in ("worker1", "worker2"):
            self._keep(name, *self._machine.command("worker", TARGET, "--redis", self.redis_url))
        for name in ("interface1", "interface2"):
            bind = f"{self.network.hosts[name].address}:{PORT}"
            self._keep(name, *self._machine.command("interface", "--redis", self.redis_url, "--bind", bind))
        for interface in self.interfaces:
            until(lambda: serves(interface), f"{interface.space} serves")  # noqa: B023 - not kept
        self.until_living("worker", 2)

    def _keep(self, name: str, *command: str) -> None:
        self.network.hosts[name].keep(command, self._machine.environment, ROOT, self.log(name))

    def log(self, name: str) -> Path:
        return self._machine.runtime / f"{name}.txt"

    def living(self, role: str) -> int:
        """Return how many processes of a role hold a lease; -1 when Redis does not answer."""
        try:
            with redis.Redis.from_url(self.redis_url, socket_timeout=10) as client:
                return living(client, Keys("default"), role)
        except redis.RedisError:
            return -1

    def until_living(self, role: str, count: int) -> None:
        until(lambda: self.living(role) == count, f"{count} of role {role} hold a lease")


def url_of(interface: Host) -> str:
    return f"http://{interface.address}:{PORT}"


def serves(interface: Host) -> bool:
    """Whether a request to this interface is answered."""
    try:
        with urlopen(f"{url_of(interface)}/", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def site(machine: Machine) -> Iterator[Site]:
    """Everything runs, and the test is on the clients' host."""
    if shutil.which("ip") is None or subprocess.run(["unshare", "--net", "true"], check=False).returncode != 0:
        pytest.skip("NOT RUN: namespaces take root and iproute2")
    network = Network("client", "redis", "interface1", "interface2", "worker1", "worker2")
    made = Site(network, machine)
    try:
        with made.client.entered():
            made.start()
            yield made
    finally:
        network.close()
        for log in machine.runtime.glob("*.txt"):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
            log.unlink()


def gone(network: Network, host: Host) -> None:
    """Take a host away for good: nobody hears a word of it, nor it of them."""
    network.unplug(host)
    host.end(signal.SIGKILL)
