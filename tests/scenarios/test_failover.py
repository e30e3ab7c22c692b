"""Sentinel makes another node the master under load: no socket closes and no turn is lost; what else is, is counted."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.links import NOTES, PATHS, Requests
from benchmarks.numbered import Load
from tests.conftest import Machine, until
from tests.sentinels import Watched, watched

ROOT = Path(__file__).parents[2]
SOCKETS = int(os.environ.get("ASGICTL_SOCKETS", "40"))  # make soak: 200, and as many requests a second
FROZEN_SECONDS = 4.5
AGAIN_SECONDS = 20.0  # after a failover, until all is answered: 3 where CPUs are free


@pytest.fixture
def nodes() -> Iterator[Watched]:
    with watched() as made:
        yield made


def killed(nodes: Watched, _flows: Callable[[], None]) -> float:
    """Kill the master; returns how long its failover took."""
    master, began = nodes.master(), time.monotonic()
    nodes.kill(master)
    until(lambda: nodes.master() == 1 - master, "the replica is the master")
    return time.monotonic() - began


def frozen(nodes: Watched, flows: Callable[[], None]) -> float:
    """Freeze the master, and wake it when there is another."""
    master, began = nodes.master(), time.monotonic()
    nodes.signal(master, signal.SIGSTOP)
    until(lambda: nodes.master() == 1 - master, "the replica is the master")
    taken = time.monotonic() - began
    time.sleep(max(0.0, FROZEN_SECONDS - taken))
    nodes.signal(master, signal.SIGCONT)
    until(lambda: nodes.nodes[master].info("replication")["role"] == "slave", "it is a replica")
    flows()
    return taken


def twice(nodes: Watched, flows: Callable[[], None]) -> float:
    """Kill the master, have it come back as a replica, and kill the other."""
    first = nodes.master()
    taken = killed(nodes, flows)
    flows()
    nodes.start(first, replica_of=1 - first)
    until(nodes.is_whole, "the Sentinels see the replica")
    flows()
    return max(taken, killed(nodes, flows))


@pytest.mark.parametrize("fault", [killed, frozen, twice])
def test_a_failover_under_load(nodes: Watched, machine: Machine, fault: Callable[..., float], tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    machine.directory = ROOT
    machine.environment |= {NOTES: str(notes)}
    machine.start("benchmarks.links:app", "--workers", "2", "--redis", nodes.url)
    load = Load(machine.url, sockets=SOCKETS, requests_per_second=SOCKETS, paths=PATHS)

    def flows() -> None:
        since, goal = time.monotonic(), load.messages + SOCKETS * 10
        until(lambda: min([*load.began(), *posts.began]) > since and load.messages > goal, "all is answered")

    with load, Requests(machine.port, clients=2) as posts:
        flows()
        taken = fault(nodes, flows)
        flows()
    groups = Counter(word for line in load.wrong for word in re.findall("a listener (misses|heard)", line))
    jobs = posts.wrong(notes, ("job",))
    print(f"failover {taken:.2f} s, stall {load.longest_stall_seconds:.2f} s, groups {groups}, jobs {jobs}")
    assert [line for line in load.wrong if not line.startswith("a listener")] == []
    assert load.closed.total() == 0
    assert load.longest_stall_seconds < taken + AGAIN_SECONDS
    # The master took commits with it that no replica had: their handlers run again, and what they produce leaves once.
    assert [line for line in posts.wrong(notes) if line.endswith("never ran")] == []
