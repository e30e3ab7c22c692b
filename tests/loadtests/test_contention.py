"""What else used the cores."""

import os
from pathlib import Path

import pytest

from asgictl.loadtests.contention import Watched, disturbances, run_delay, throttled
from tests.conftest import until

PINNED = Watched([0], [1])
QUIET = {
    "servers busy": 5.0,
    "load busy": 4.0,
    "servers stolen": 0.0,
    "load stolen": 0.0,
    "delay": 0.1,
    "throttled": 0.0,
}
USED = {"servers": 4.8, "load": 3.9}


def test_what_we_use_ourselves_disturbs_nothing() -> None:
    assert disturbances(PINNED, QUIET, USED, 10.0, 0.001) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"servers busy": 9.8}, "a neighbour used 50% of the cores of the servers"),
        ({"load busy": 9.9}, "a neighbour used 60% of the cores of the load"),
        ({"load stolen": 0.5}, "the hypervisor took 5% of the cores of the load"),
        ({"delay": 2.0}, "the load generator waited 20% of the time for its core"),
        ({"throttled": 0.25}, "the cgroup's quota held processes up for 0.25 s"),
    ],
)
def test_each_disturbance_is_named(found: dict[str, float], words: str) -> None:
    assert disturbances(PINNED, QUIET | found, USED, 10.0, None) == [words]


def test_a_late_generator_disturbs_where_latency_is_judged() -> None:
    assert disturbances(PINNED, QUIET, USED, 10.0, 0.05) == ["the load generator was 50 ms late"]


def test_where_servers_and_load_share_their_cores_they_are_one_set() -> None:
    shared = Watched([0], [0])
    assert disturbances(shared, QUIET | {"servers busy": 8.8, "load busy": 8.8, "delay": 5.0}, USED, 10.0, None) == []


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux's alone")
def test_the_kernel_tells_what_cores_did() -> None:
    core = min(os.sched_getaffinity(0))
    watched = Watched([core], [core])
    before = watched.now([os.getpid()])
    assert before.keys() == {*QUIET}
    until(lambda: watched.now([])["servers busy"] > before["servers busy"], "the core has done something")
    assert run_delay(1 << 30) == 0.0
    assert throttled() >= 0.0
