"""The arithmetic of comparisons, on samples that were recorded."""

import pytest

from loadtests.verdicts import Sample, judge

SPLIT = [Sample(14281, 118), Sample(13022, 125), Sample(15110, 112)]
THREADS = [Sample(3650, 270), Sample(3711, 268), Sample(2900, 301)]


def test_the_ratio_is_that_of_the_medians() -> None:
    found = judge(SPLIT, THREADS, 2.5)
    assert found.ratio == pytest.approx(14281 / 3650)
    assert found.rates == (14281, 3650)
    assert found.cpu_microseconds == (118, 270)


def test_the_spread_is_that_of_neighbouring_runs() -> None:
    found = judge(SPLIT, THREADS, 2.5)
    assert [found.low, found.high] == pytest.approx([13022 / 3711, 15110 / 2900])


@pytest.mark.parametrize(("at_least", "met"), [(3.9, True), (3.92, False)])
def test_a_bar_is_met_or_not(at_least: float, met: bool) -> None:
    assert judge(SPLIT, THREADS, at_least).met is met


def test_runs_that_have_no_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 runs"):
        judge(SPLIT, THREADS[:2], 1)
    with pytest.raises(ValueError, match="0 and 0 runs"):
        judge([], [], 1)
