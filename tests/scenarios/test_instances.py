"""Two instances of one application on one external Redis never meet, on each server that is promised."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from asgictl.layers.redis.keys import Keys
from benchmarks.numbered import Load
from tests.conftest import SERVERS, Machine, new_machine, redis_server, until
from tests.scenarios.test_demo import SECONDS
from tests.scenarios.test_faults import flows, pids, replaced

NAMES = ("shop", "shop-2")
ROOT = Path(__file__).parents[2]
SOCKETS = 10
WORKERS = 2


class Pair:
    """Both instances, on one machine; each says and does what a Machine does, for its own name."""

    def __init__(self, runtime: Path, url: str) -> None:
        self.redis = url
        self.instances = [Machine(runtime) for _ in NAMES]
        for name, instance in zip(NAMES, self.instances, strict=True):
            instance.directory = ROOT
            instance.environment["ASGICTL_NAME"] = name

    def start(self, instance: Machine) -> None:
        instance.start("benchmarks.numbered:app", "--workers", str(WORKERS), "--redis", self.redis)

    def keys(self, client: Any) -> dict[str, set[str]]:
        """Return the keys of each instance; there are no others."""
        found = {key.decode() for key in client.scan_iter()}
        kept = {name: {key for key in found if key.startswith(f"asgictl:{{{name}}}:")} for name in NAMES}
        assert set.union(*kept.values()) == found
        return kept


@pytest.fixture(scope="module", params=SERVERS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with redis_server(request.param) as url, new_machine() as machine:
        made = Pair(machine.runtime, url)
        try:
            for instance in made.instances:
                made.start(instance)
            yield made
        finally:
            for instance in made.instances:
                instance.stop()


@pytest.fixture
def client(pair: Pair) -> Iterator[Any]:
    with redis.Redis.from_url(pair.redis) as made:
        yield made


def processes(instance: Machine) -> dict[str, int]:
    found = instance.status()["processes"]
    return {process["process"]: process["pid"] for process in found}


def test_what_is_said_in_one_is_heard_in_it_alone(pair: Pair) -> None:
    """Paths and group are the same; a message that strayed would be heard before the next round's."""
    with ExitStack() as stack:

        def open_socket(instance: Machine, query: str = "") -> ClientConnection:
            return stack.enter_context(connect(f"{instance.ws}/numbers{query}"))

        senders = [open_socket(instance) for instance in pair.instances]
        listeners = [[open_socket(instance, "?listen") for _ in range(3)] for instance in pair.instances]
        for number in range(1, 21):
            for name, sender, members in zip(NAMES, senders, listeners, strict=True):
                sender.send(f"{name} {number}")
                assert sender.recv(SECONDS) == f"{number}:{number}"
                assert [member.recv(SECONDS) for member in members] == [f"{name} {number}"] * 3


def test_each_key_is_of_one_of_them(pair: Pair, client: Any) -> None:
    with ExitStack() as stack:
        for instance in pair.instances:
            ws = stack.enter_context(connect(instance.ws + "/numbers"))
            ws.send("one 1")
            assert ws.recv(SECONDS) == "1:1"
        for name, kept in pair.keys(client).items():
            keys = Keys(name)
            assert {keys.broadcast, keys.manifest, keys.alive, keys.channel("websocket.receive")} <= kept
            assert sum(key.startswith(keys.replies("")) for key in kept) == 2, "of requests and of sockets"


@pytest.mark.parametrize("fault", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_is_missed_in_its_own_alone(pair: Pair, fault: signal.Signals) -> None:
    """Senders have the same names in both, so that a listener notices what strays."""
    one, other = pair.instances
    before, untouched = pids(one, "worker"), processes(other)
    with Load(one.url, sockets=SOCKETS) as load, Load(other.url, sockets=SOCKETS) as others:
        flows(load, 50)
        flows(others, 50)
        os.kill(min(before), fault)
        until(lambda: replaced(one, before, WORKERS), "another is ready")
        flows(load, 50)
        flows(others, 50)
    assert load.wrong == others.wrong == []
    assert processes(other) == untouched


def test_an_instance_stops_and_starts_again_beside_the_other(pair: Pair, client: Any) -> None:
    one, other = pair.instances
    untouched = processes(other)
    with Load(other.url, sockets=SOCKETS) as load:
        flows(load, 50)
        kept = pair.keys(client)[NAMES[1]]
        one.stop()
        flows(load, 50)
        assert pair.keys(client)[NAMES[1]] >= kept
        pair.start(one)
        flows(load, 50)
    assert load.wrong == []
    assert processes(other) == untouched
