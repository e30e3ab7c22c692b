"""What a record and the samples of usage make of a run."""

from dataclasses import replace
from typing import Any

import pytest

from asgictl.loadtests.contention import Watched
from asgictl.loadtests.run import Happening, Run, summarise
from asgictl.loadtests.scenarios import SCENARIOS, Scenario
from asgictl.loadtests.usage import Sample, Usage

MIB = float(1 << 20)
RECORD: dict[str, Any] = {  # two seconds of 5 and 3 answers; buckets are of histogram.STEPS a doubling, from 1 µs
    "begin": 100.0,
    "seconds": 2.0,
    "counts": {"0": {"request": {"1280": 4, "1408": 1}, "connect": {"1280": 7}}, "1": {"request": {"1280": 3}}},
    "failed": {"1": {"request": 1, "close": 2, "connect": 9}},
    "errors": {"request: refused": 1},
    "affected": {"0": [0], "1": [0, 1]},
    "gaps": {"0": 0.1, "1": 0.5},
    "held": [],
    "lateness": 0.001,
    "missed": 3,
}
HELLO = replace(SCENARIOS["hello"], count=10)


def recorded() -> Usage:
    usage = Usage("/nowhere", "server")
    usage.samples = [
        Sample(99.0, {"worker": 0.0}),
        Sample(101.0, {"worker": 0.2, "generator": 1.0}),
        Sample(103.0, {"worker": 0.4, "generator": 3.0}),
    ]
    usage.held = [(99.0, {"worker": 10 * MIB}), (101.0, {"worker": 30 * MIB}), (103.0, {"worker": 20 * MIB})]
    return usage


def made(scenario: Scenario = HELLO, happenings: tuple[Happening, ...] = (), **more: Any) -> Run:
    return summarise(scenario, "split", 1, RECORD | more, recorded(), Watched([0], [1]), happenings)


def test_a_record_and_the_samples_make_a_run() -> None:
    run = made()
    assert (run.rate, run.failed, run.closed, run.refused, run.affected) == (4.0, 1, 2, 9, 2)
    assert (run.gap, run.missed) == (0.5, 3)
    assert run.wrong / (run.done + run.wrong) == 12 / 20
    assert run.cpu == {"worker": pytest.approx(0.2e6 / 8)}
    assert run.generator == pytest.approx((2.0 - 0.5) / 2)
    assert run.memory == {"worker": 30.0}
    assert [second[:2] for second in run.seconds] == [(5, 0), (3, 10)]
    assert run.percentiles[0] == pytest.approx(0.001024, rel=0.004)
    assert run.metric("p99") == pytest.approx(0.002048, rel=0.004)
    assert sum(run.histogram.values()) == 8


def test_only_the_fast_ones_latency_counts_where_there_are_slow_ones() -> None:
    run = made(SCENARIOS["mixed"], counts={"0": {"fast": {"1280": 1}, "slow": {"2000": 9}}})
    assert run.rate == 5.0
    assert run.metric("p99") == pytest.approx(0.001024, rel=0.004)


def test_what_was_due_and_never_sent_is_timed_but_not_done() -> None:
    run = made(SCENARIOS["mixed"], counts={"0": {"fast": {"1280": 3}, "unsent": {"2600": 1}}}, failed={})
    assert (run.done, run.unsent, run.wrong) == (3, 1, 1)
    assert run.metric("p99") == pytest.approx(1.3, rel=0.01)


def test_at_a_rate_each_attempt_to_connect_is_a_start_that_was_due() -> None:
    run = made(replace(HELLO, rate=5.0))
    assert (run.failed, run.refused) == (10, 0)


def test_memory_is_the_growth_from_a_warm_start_for_each_further_socket_held() -> None:
    assert made(held=[(99.5, 250), (101.5, 1000)]).kib == pytest.approx(20 * 1024 / 750)
    assert made().grown == 20.0, "from 10 MiB to 30"
    assert made().metric("memory") == 30.0
    assert made(held=[(101.5, 1000)]).kib == 0.0
    assert made(held=[(99.5, 250), (101.5, 250)]).kib == 0.0, "the others were refused"


def test_of_sockets_that_are_only_held_few_that_failed_are_few() -> None:
    run = made(SCENARIOS["idle"], counts={}, failed={"0": {"connect": 1}}, held=[(99.5, 250), (101.5, 1999)])
    assert (run.done, run.wrong) == (1999, 1)


def test_each_happening_has_what_was_noticed_until_the_next() -> None:
    first, lacking, second = (
        Happening("application", 0.2, "kill -9 of a worker"),
        Happening("master", None, note="has no master"),
        Happening("redis", 1.4, "kill -9 of Redis"),
    )
    run = made(happenings=(first, lacking, second))
    assert run.happenings == [
        replace(first, affected=1, requests=0, closed=0, gap=0.1),
        lacking,
        replace(second, affected=2, requests=10, closed=2, gap=0.5),
    ]
