"""The arithmetic of bars, on samples that were recorded."""

from collections import Counter

import pytest

from benchmarks import verdicts
from benchmarks.deploy_load import KEPT, Counts
from benchmarks.verdicts import MIB, Reading, growth, idle, latency, layer_latency, recovery, refusals, slow_neighbour

SPLIT_RUNS = [[0.00047, 0.00049, 0.00912], [0.00042, 0.00044, 0.00051], [0.00049, 0.00050, 0.00050]]
INPROCESS_RUNS = [[0.00014, 0.00015, 0.00019], [0.00016, 0.00017, 0.00030], [0.00013, 0.00015, 0.00015]]
BEFORE = {"redis": 12.0 * MIB, "interface-00": 38.9 * MIB, "worker-00": 41.0 * MIB}


def test_latency_is_the_median_of_what_neighbouring_medians_differ_by() -> None:
    found = latency(SPLIT_RUNS, INPROCESS_RUNS)
    assert found.figure == pytest.approx(0.34)
    assert found.note == "0.27–0.35; split 0.49, in-process 0.15"
    assert not found.met


def test_memberships_share_what_a_process_grew_by() -> None:
    found = verdicts.memberships(10 * MIB, 30 * MIB, 20_000, 100)
    assert found.figure == pytest.approx(1.024)
    assert not found.met


def test_a_layer_is_compared_run_by_run() -> None:
    found = layer_latency([0.0003, 0.0004, 0.0002], [0.001, 0.0005, 0.001])
    assert found.figure == pytest.approx(0.3)
    assert found.met
    assert found.note == "ours 0.30 ms, channels_redis core 1.00"


def test_an_idle_socket_costs_its_share_of_what_the_interface_grew_by() -> None:
    found = idle(38.9 * MIB, 81.6 * MIB, 4000)
    assert found.figure == pytest.approx(10.93, abs=0.01)
    assert found.met
    assert not idle(38.9 * MIB, 81.6 * MIB, 2000).met


def test_attackers_cost_memory_and_neighbours_time() -> None:
    alone, beside = [0.001] * 100, [0.001] * 97 + [0.2] * 3
    peak = BEFORE | {"interface-00": 98.9 * MIB}
    memory, requests, echoes = verdicts.hostile("pings", (alone, alone), (beside, alone), BEFORE, peak, "9 cut")
    assert (str(memory.name), memory.note) == ("pings: memory", "interface-00; 9 cut")
    assert memory.figure == pytest.approx(60)
    assert requests.figure == pytest.approx(199)
    assert requests.note == "p99 1.0 → 200.0, longest 200 ms of 100"
    assert (memory.met, requests.met, echoes.met) == (True, False, True)


@pytest.mark.parametrize(("longest", "met"), [(5.0023, False), (0.2663, True), (0.0102, True)])
def test_a_slow_neighbour_delays_by_what_the_longest_is_longer(longest: float, met: bool) -> None:
    found = slow_neighbour([0.0021, 0.0163, 0.0018], [0.0022, longest])
    assert found.figure == pytest.approx((longest - 0.0163) * 1e3)
    assert found.met is met


def test_growth_is_that_of_the_process_that_grew_most() -> None:
    peak = {"redis": 43.5 * MIB, "interface-00": 1087.6 * MIB, "worker-00": 41.0 * MIB}
    found = growth("download", BEFORE, peak, 64, "; 50 MiB/s")
    assert found.figure == pytest.approx(1048.7)
    assert found.note == "interface-00; 50 MiB/s"
    assert not found.met


def test_a_process_that_ended_meets_no_bar() -> None:
    assert not growth("upload", BEFORE, BEFORE | {"redis": float("inf")}, 64).met


@pytest.mark.parametrize(
    ("others", "lost", "wrong"), [({}, 0, 0), ({(503, False): 3, (502, False): 1}, 0, 4), ({}, 638, 638)]
)
def test_overload_is_answered_by_service_or_by_a_refusal_that_says_when_to_try_again(
    others: dict[tuple[int, bool], int], lost: int, wrong: int
) -> None:
    found = refusals({(200, False): 1428, (503, True): 90210, **others}, lost)
    assert found.figure == wrong
    assert found.met is (wrong == 0)


@pytest.mark.parametrize("counts", [{(200, False): 1428}, {(503, True): 90210}, {}])
def test_what_serves_all_or_nothing_was_no_overload(counts: dict[tuple[int, bool], int]) -> None:
    with pytest.raises(ValueError, match="no overload, or no service"):
        refusals(counts, 0)


@pytest.mark.parametrize(("after", "met"), [([0.0007, 0.0010, 0.2], True), ([0.0011, 0.0011, 0.0011], False)])
def test_recovery_compares_medians(after: list[float], met: bool) -> None:
    assert recovery([0.0005, 0.0005, 0.0009], after).met is met


def test_a_reading_is_one_line() -> None:
    assert str(Reading("idle", 21.84, 26, "KiB", "2000 sockets")) == (
        "idle                                21.84    26.00 KiB   met      2000 sockets"
    )
    assert str(Reading("overload answers", 3, 0, "")).endswith("NOT met")


def test_an_event_that_is_missing_meets_no_bar() -> None:
    assert verdicts.events([0.001, 0.049], 2).met
    assert not verdicts.events([0.001, 0.051], 2).met
    assert not verdicts.events([0.001], 2).met


def test_every_poll_is_to_be_answered() -> None:
    assert verdicts.long_polls([10.1, 10.4], 2).met
    assert not verdicts.long_polls([10.1], 2).met


@pytest.mark.parametrize(
    ("late", "wrong"),
    [({0: [0.1], 1: [0.0]}, 0), ({0: [0.1]}, 1), ({0: [-0.001], 1: [0.2]}, 1), ({0: [0.1, 0.2], 1: [1.0]}, 1), ({}, 2)],
)
def test_a_delayed_job_runs_once_and_not_early(late: dict[int, list[float]], wrong: int) -> None:
    assert verdicts.background(late, 2).figure == wrong


def test_after_a_soak_the_process_that_grew_most_decides() -> None:
    errors, memory = verdicts.soak({"redis": 100.0, "worker": 200.0}, {"redis": 104.0, "worker": 212.0}, [])
    assert errors.met
    assert not memory.met
    assert memory.note.startswith("worker")
    assert not verdicts.soak({"redis": 100.0}, {}, ["lost"])[0].met


def test_neighbours_of_a_fault_lose_nothing_and_wait_for_so_long() -> None:
    closed, wrong, stall = verdicts.neighbours("fragments", 0, ["s1 sent 2, heard 3:3"], 4, 0.4, 0.3)
    assert (closed.met, wrong.met, stall.met) == (True, False, False)
    assert (wrong.note, stall.note) == ("s1 sent 2, heard 3:3", "4 requests failed")


def test_whoever_has_a_silent_redis_notices_nothing_but_a_stall() -> None:
    whole, stall = verdicts.noticed("stall", {"closed": 0, "lost": 2, "repeated": 1}, ["s1 misses 3"], 25, 26)
    assert (whole.figure, whole.met, stall.met) == (3, False, True)
    assert whole.note == "0 closed, 2 lost, 1 repeated; s1 misses 3"


def test_deploys_may_close_sockets_with_some_codes_and_once_each() -> None:
    counts = Counts(requests=Counter({KEPT: 90}), failed=Counter({KEPT: 2}), handshakes=60, handshakes_failed=1)
    counts.closed = Counter({1012: 50, 1006: 3})
    counts.again = 4
    counts.errors["handshake: OSError"] = 1
    failed, closed = verdicts.deploys("in-process", counts, (1012,))
    assert (failed.figure, failed.met) == (3, False)
    assert failed.note == "of 90 requests, 60 handshakes; the load was late by 0.00 s at most; 1 handshake: OSError"
    assert (closed.figure, closed.note) == (7, "3 with 1006, 50 with 1012; 4 again in the same deploy")
    assert all(each.met for each in verdicts.deploys("split", Counts(requests=Counter({KEPT: 1})), ()))
    assert not verdicts.deploys("split", Counts(), ())[0].met, "nothing was served"


def test_a_handover_loses_nothing_and_stalls_little_longer_than_another_server() -> None:
    *counted, stall, at_rest = verdicts.handover({"closed": 0, "lost": 2}, "9 messages", 1.4, 1.0, 0.95)
    assert [(each.name, each.met) for each in counted] == [("handover: closed", True), ("handover: lost", False)]
    assert (stall.met, stall.note) == (True, "1.40; uvicorn 1.00")
    assert (round(at_rest.figure), at_rest.met) == (5, True)
    assert at_rest.note.endswith("9 messages")
    assert not verdicts.handover({}, "", 1.6, 1.0, 0.8)[0].met


def test_a_crowd_that_moves_counts_those_that_did_not_open_too() -> None:
    closed, seconds, memory = verdicts.handover_crowd(10, 8, 1, 9.0, 100 * MIB, 131 * MIB)
    assert (closed.figure, seconds.met, memory.met) == (3, True, False)
    assert memory.note == "100.0 → 131.0 MiB (PSS)"
