"""The arithmetic of comparisons, on samples that were recorded."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.usage import Sample, Usage
from asgictl.loadtests.verdicts import Run, Verdict, answer, judge, summarise

SPLIT = [14281.0, 13022.0, 15110.0]  # requests a second, of three rounds
THREADS = [3650.0, 3711.0, 2900.0]


def test_the_ratio_is_that_of_the_medians() -> None:
    found = judge(SPLIT, THREADS)
    assert found.ratio == pytest.approx(14281 / 3650)
    assert (found.ours, found.theirs) == (14281, 3650)


def test_the_spread_is_that_of_neighbouring_rounds() -> None:
    found = judge(SPLIT, THREADS)
    assert [found.low, found.high] == pytest.approx([13022 / 3711, 15110 / 2900])


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        (SPLIT, THREADS, True),
        ([100.0, 101.0, 99.0], [83.0, 84.0, 83.5], True),  # a handler that takes 20% longer
        ([100.0, 101.0, 99.0], [97.0, 97.1, 97.2], False),  # surely different, but by 3%
        ([100.0, 140.0, 80.0], [70.0, 110.0, 75.0], False),  # the rounds span more than the sides are apart
        ([100.0], [10.0], False),  # one round
    ],
)
def test_sides_differ_when_they_are_further_apart_than_their_rounds(
    ours: list[float], theirs: list[float], differs: bool
) -> None:
    assert judge(ours, theirs).differs is differs


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_equal_sides_hardly_ever_differ(noise: float, rounds: int) -> None:
    chance = random.Random(7)

    def side() -> list[float]:
        return [1000 * math.exp(chance.gauss(0, noise)) for _ in range(rounds)]

    assert sum(judge(side(), side()).differs for _ in range(2000)) <= 60  # 3% of them


def test_twenty_percent_is_found_where_rounds_vary_by_three() -> None:
    chance = random.Random(7)

    def side(rate: float) -> list[float]:
        return [rate * math.exp(chance.gauss(0, 0.03)) for _ in range(3)]

    assert sum(judge(side(200), side(167)).differs for _ in range(1000)) > 850


def test_counts_may_be_nothing() -> None:
    assert judge([0, 0, 0], [20, 20, 20], plus=1).differs
    assert not judge([0, 0, 0], [0, 0, 0], plus=1).differs
    with pytest.raises(ValueError, match="no ratio"):
        judge([0.0], [1.0])


def test_rounds_that_have_no_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 runs"):
        judge(SPLIT, THREADS[:2])
    with pytest.raises(ValueError, match="0 and 0 runs"):
        judge([], [])


def runs(side: str, rates: list[float], **more: Any) -> list[Run]:
    usual: dict[str, Any] = {"percentiles": [0.01] * 9, "cpu": {"worker": 1e6 / rates[0]}}
    return [Run(side, "hello", number, rate=rate, **(usual | more)) for number, rate in enumerate(rates, 1)]


def test_the_winner_is_named_in_words() -> None:
    found = answer(SCENARIOS["hello"], runs("split", SPLIT), runs("threads", THREADS))
    assert (found.winner, found.words) == ("split", "split serves 3.9 times as many requests")
    found = answer(SCENARIOS["hello"], runs("split", THREADS), runs("threads", SPLIT))
    assert (found.winner, found.words) == ("threads", "threads serves 3.9 times as many requests")
    assert answer(SCENARIOS["hello"], runs("a", SPLIT), runs("b", SPLIT)).words == "no difference"


def test_of_latency_less_is_better() -> None:
    quick, slow = ([Run("", "mixed", n, percentiles=[at + n / 1e6] * 9) for n in range(3)] for at in (0.01, 0.05))
    found = answer(
        SCENARIOS["mixed"], [replace(run, side="split") for run in slow], [replace(r, side="b") for r in quick]
    )
    assert (found.winner, found.metric) == ("b", "p99")
    assert "the slowest 1% wait 5.0 times as long with split" in found.words


def test_where_the_generator_was_the_limit_cost_is_judged_and_it_is_said() -> None:
    found = answer(SCENARIOS["hello"], runs("split", SPLIT, generator=0.97), runs("threads", THREADS))
    assert (found.metric, found.winner) == ("cost", "split")
    assert "saturated beside split (97% of a core)" in found.notes[0]


def test_what_was_lost_is_counted() -> None:
    ours = [Run("split", "deploy", number, event_at=5.0) for number in range(3)]
    theirs = [Run("b", "deploy", number, failed=number, closed=20, event_at=5.0) for number in range(3)]
    found = answer(SCENARIOS["deploy"], ours, theirs)
    assert found.words == "split is ahead: sockets closed and requests failed: split 0, b 21"


def test_a_side_that_failed_or_answered_nothing_is_not_compared() -> None:
    failed = [Run("split", "hello", 1, error="it ended")]
    found = answer(SCENARIOS["hello"], failed, runs("b", SPLIT))
    assert (found.verdict, found.words, found.notes) == (None, "not compared: split failed", ("it ended",))
    silent = [replace(run, rate=0, failed=9, errors={"refused": 9}) for run in runs("b", [1, 1, 1])]
    found = answer(SCENARIOS["hello"], runs("split", SPLIT), silent)
    assert found.words == "not compared: b answered nothing"
    assert found.notes == ("b: 27 failed, most often refused",)


RECORD = {  # two seconds of 5 and 3 answers and a failure; buckets are of histogram.STEPS a doubling, from 1 µs
    "begin": 100.0,
    "seconds": 2.0,
    "counts": {"0": {"request": {"1280": 4, "1408": 1}, "connect": {"1280": 7}}, "1": {"request": {"1280": 3}}},
    "failed": {"1": {"request": 1, "close": 2}},
    "errors": {"request: refused": 1},
    "gap": 0.5,
    "missed": 3,
}


def recorded() -> Usage:
    usage = Usage("/nowhere", "server")
    mib = float(1 << 20)
    usage.samples = [
        Sample(99.0, {"worker": 0.0}, {"worker": 10 * mib}),
        Sample(101.0, {"worker": 0.2, "generator": 1.0}, {"worker": 30 * mib, "generator": mib}),
        Sample(103.0, {"worker": 0.4, "generator": 3.0}, {"worker": 20 * mib}),
    ]
    return usage


def test_a_record_and_the_samples_make_a_run() -> None:
    run = summarise(replace(SCENARIOS["hello"], count=10), "split", 1, RECORD, recorded(), 1.0, "")
    assert (run.rate, run.failed, run.closed, run.gap, run.missed) == (4.0, 1, 2, 0.5, 3)
    assert run.cpu == {"worker": pytest.approx(0.2e6 / 8)}
    assert run.generator == pytest.approx((2.0 - 0.5) / 2)
    assert (run.memory, run.kib) == ({"worker": 30.0}, 20 * 1024 / 10)
    assert [second[:2] for second in run.seconds] == [(5, 0), (3, 1)]
    assert run.percentiles[0] == pytest.approx(0.001024, rel=0.004)
    assert run.metric("p99") == pytest.approx(0.002048, rel=0.004)


def test_only_the_fast_ones_latency_counts_where_there_are_slow_ones() -> None:
    record = RECORD | {"counts": {"0": {"fast": {"1280": 1}, "slow": {"2000": 9}}}}
    run = summarise(SCENARIOS["mixed"], "split", 1, record, recorded(), None, "")
    assert run.rate == 5.0
    assert run.metric("p99") == pytest.approx(0.001024, rel=0.004)


def test_a_verdict_has_both_medians() -> None:
    assert judge([2.0], [1.0]) == Verdict(2.0, 2.0, 2.0, 2.0, 1.0, False)
