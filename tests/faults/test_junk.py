"""A9: what is none of ours in Redis spoils itself alone: no process dies of it, none spins, others notice nothing."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from tests.conftest import Machine
from tests.faults.junk import Junk
from tests.faults.loaded import loaded

SECONDS = 5.0
SOAK_SECONDS = 60.0
PAUSE_SECONDS = 0.005  # between two writes
MOST_SHARE = 0.6  # of a core, that a process may use
AGAIN_SECONDS = 15.0
REDIS = "asgictl/default/redis.sock"


def client_of(machine: Machine) -> "redis.Redis":
    return redis.Redis.from_url(f"unix://{machine.runtime}/{REDIS}")


def processes(machine: Machine) -> dict[str, int]:
    found = json.loads(machine.run("status", "--json").stdout)["processes"]
    return {each["process"]: each["pid"] for each in found}


def used(pids: dict[str, int]) -> dict[str, float]:
    """Return the CPU seconds of each process."""
    found = {}
    for name, pid in pids.items():
        times = psutil.Process(pid).cpu_times()
        found[name] = times.user + times.system
    return found


@contextmanager
def steady(machine: Machine) -> Iterator[None]:
    """Judge that every process lives, and that none has spun."""
    before, began = processes(machine), time.monotonic()
    seconds = used(before)
    yield
    assert processes(machine) == before
    took = time.monotonic() - began
    shares = {name: (now - seconds[name]) / took for name, now in used(before).items()}
    assert {name: share for name, share in shares.items() if share > MOST_SHARE} == {}


def write(junk: Junk, act: Callable[[], None], seconds: float) -> None:
    """Write junk for so long."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        act()
        time.sleep(PAUSE_SECONDS)
    print(f"{len(junk.done)} writes")


def redis_of(machine: Machine, mode: str) -> "redis.Redis":
    """An instance's own; in-process, of one that has groups or jobs to share."""
    del mode
    return client_of(machine)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


KINDS = [("split", "app"), ("split", "streams"), ("inprocess", "app")]
RUNS = [pytest.param(SECONDS, id="5s"), pytest.param(SOAK_SECONDS, id="60s", marks=pytest.mark.soak)]


@pytest.mark.parametrize(("mode", "target"), KINDS)
@pytest.mark.parametrize("seconds", RUNS)
@pytest.mark.parametrize("seed", [1])
def test_entries_of_no_sense_spoil_themselves_alone(
    machine: Machine, notes: Path, mode: str, target: str, seconds: float, seed: int
) -> None:
    """A9: sockets that count notice nothing, requests are answered."""
    with (
        loaded(machine, notes, target, "--mode", mode, "--workers", "2") as site,
        closing(client_of(machine)) as client,
    ):
        junk = Junk(client, seed)
        with steady(machine):
            write(junk, junk.entry, seconds)
            site.flows(AGAIN_SECONDS, "it flows still")
    assert site.wrong == []
    assert site.requests.statuses == {200}


@pytest.mark.parametrize(("mode", "target"), KINDS)
@pytest.mark.parametrize("seconds", RUNS)
@pytest.mark.parametrize("seed", [1])
def test_keys_of_no_sense_end_no_process(
    machine: Machine, notes: Path, mode: str, target: str, seconds: float, seed: int
) -> None:
    """A9: whatever stands there; once Redis has forgotten it, the instance serves as before."""
    options = ("--mode", mode, "--workers", "2")
    with loaded(machine, notes, target, *options, again=True) as site, closing(client_of(machine)) as client:
        junk = Junk(client, seed)
        with steady(machine):
            write(junk, junk.key, seconds)
            client.flushall()
            site.flows(AGAIN_SECONDS, "it flows again")
