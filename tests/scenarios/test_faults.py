"""Faults under load: nothing is lost, repeated or out of order at the socket, and no socket closes."""

import json
import os
import signal
from pathlib import Path

import pytest
import redis

from benchmarks.numbered import Load
from tests.conftest import Machine, until

ROOT = Path(__file__).parents[2]
SOCKETS = int(os.environ.get("ASGICTL_SOCKETS", "40"))  # make soak: 200


@pytest.fixture
def loaded(machine: Machine) -> Machine:
    machine.directory = ROOT
    return machine


def status(machine: Machine) -> list[dict[str, object]]:
    return list(json.loads(machine.run("status", "--json").stdout)["ready"])


def pids(machine: Machine, role: str) -> set[int]:
    return {int(str(report["pid"])) for report in status(machine) if report["role"] == role}


def replaced(machine: Machine, before: set[int], workers: int) -> bool:
    now = pids(machine, "worker")
    return len(now) == workers and len(now - before) == 1


def flows(load: Load, messages: int = 300) -> None:
    """Wait until that many more messages have made their way."""
    goal = load.messages + messages
    until(lambda: load.messages >= goal or load.wrong, "messages flow", 40)


def client_of(machine: Machine) -> redis.Redis:
    return redis.Redis.from_url(f"unix://{machine.runtime}/asgictl/default/redis.sock")


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_workers(loaded: Machine, workers: int) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", str(workers))
    with Load(loaded.url, sockets=SOCKETS) as load:
        for _ in range(4):
            flows(load)
            before = pids(loaded, "worker")
            os.kill(next(iter(before)), signal.SIGKILL)
            until(lambda: replaced(loaded, before, workers), "another is ready")  # noqa: B023 - not kept
        flows(load)
    assert load.wrong == []


def test_a_worker_that_stands_still_for_longer_than_its_lease(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load:
        flows(load)
        before = pids(loaded, "worker")
        still = next(iter(before))
        os.kill(still, signal.SIGSTOP)
        goal = load.messages + SOCKETS * 80
        until(lambda: load.messages > goal or load.wrong, "its work goes on elsewhere", 40)
        os.kill(still, signal.SIGCONT)
        until(lambda: still not in pids(loaded, "worker") and len(pids(loaded, "worker")) == 2, "it is fenced", 30)
        flows(load)
    assert load.wrong == []


def test_redis_is_killed(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load:
        for _ in range(3):
            flows(load)
            processes = json.loads(loaded.run("status", "--json").stdout)["processes"]
            os.kill(next(p["pid"] for p in processes if p["role"] == "redis"), signal.SIGKILL)
            flows(load)
    assert load.wrong == []


def test_redis_forgets_everything(loaded: Machine) -> None:
    """FLUSHALL: turns stay exact; group messages may be lost or repeated, so nobody listens."""
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS, listeners=0) as load, client_of(loaded) as client:
        for _ in range(4):
            flows(load)
            client.flushall()
            flows(load)
    assert load.wrong == []


def test_connections_to_redis_are_cut(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load, client_of(loaded) as client:
        for _ in range(20):
            flows(load, 60)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        flows(load)
    assert load.wrong == []


def test_a_killed_interface_takes_only_its_own_sockets_along(loaded: Machine) -> None:
    """Two interfaces: whose sockets end is the killed one's alone; what it left in Redis is cleaned."""
    loaded.start("benchmarks.numbered:app", "--workers", "1", "--interfaces", "2")
    with client_of(loaded) as client, Load(loaded.url, sockets=SOCKETS, listeners=0) as load:
        flows(load)
        streams = set(client.scan_iter("*:re:*"))
        assert len(streams) == 2
        os.kill(next(iter(pids(loaded, "interface"))), signal.SIGKILL)
        until(lambda: len(streams & set(client.scan_iter("*:re:*"))) == 1, "its reply stream is gone")
        until(lambda: len(pids(loaded, "interface")) == 2, "it is replaced")
        flows(load)
    assert load.wrong
    assert all("was closed" in line or "request failed" in line for line in load.wrong), load.wrong
    assert len(load.wrong) <= SOCKETS
