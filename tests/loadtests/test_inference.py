"""The statistics of comparisons, against values that scipy 1.17.1 gave."""

import math
import random

import pytest

from asgictl.loadtests.inference import (
    ERROR,
    LOOKS,
    MOST_NEEDED,
    binomial_p,
    estimate,
    holm,
    poisson_most,
    remaining,
    rounds_needed,
    student_p,
    student_t,
)


@pytest.mark.parametrize(
    ("error", "freedom", "t"),
    [(0.05, 1, 12.7062), (0.05, 2, 4.30265), (0.05, 3, 3.18245), (0.01, 4, 4.60409), (0.05, 5, 2.57058),
     (0.025, 7, 2.84124), (0.05, 10, 2.22814), (0.02, 18, 2.55238), (0.001, 11, 4.43698)],
)  # fmt: skip
def test_students_t(error: float, freedom: int, t: float) -> None:
    assert student_t(error, freedom) == pytest.approx(t, rel=1e-5)
    assert student_p(-t, freedom) == pytest.approx(error, rel=1e-4)


def test_an_interval_of_paired_differences() -> None:
    found = estimate([0.1, 0.2, 0.15, 0.19], 0.05)  # scipy.stats.ttest_1samp
    assert (found.mean, found.low, found.high) == pytest.approx((0.16, 0.08766203, 0.23233797), rel=1e-5)
    assert found.p == pytest.approx(0.00589168, rel=1e-4)


def test_a_single_round_says_nothing_of_the_spread() -> None:
    found = estimate([0.5], 0.05)
    assert (found.low, found.high, found.p) == (-math.inf, math.inf, 1.0)


@pytest.mark.parametrize(
    ("fewer", "trials", "p"), [(0, 6, 0.03125), (3, 10, 0.34375), (5, 10, 1.0), (8, 40, 0.000182166)]
)
def test_uneven_counts_are_as_improbable_as_a_coins(fewer: int, trials: int, p: float) -> None:
    assert binomial_p(fewer, trials) == binomial_p(trials - fewer, trials) == pytest.approx(p, rel=1e-4)


@pytest.mark.parametrize(("count", "most"), [(0, 2.99573), (1, 4.74386), (10, 16.9622)])
def test_a_count_has_a_largest_mean(count: int, most: float) -> None:
    assert poisson_most(count, 0.05) == pytest.approx(most, rel=1e-5)


def test_several_tests_at_once_are_corrected_as_holm_did() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_each_look_leaves_half_of_the_rest_to_the_later_ones() -> None:
    assert [remaining(rounds) for rounds in (1, 4, 5, 8, 9, 12)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_equal_sides_that_are_looked_at_again_and_again_hardly_ever_differ(noise: float) -> None:
    chance, wrong = random.Random(7), 0
    for _ in range(2000):
        differences = [chance.gauss(0, noise) for _ in range(12)]
        looks = [(rounds, remaining(rounds) / 2) for rounds in LOOKS] + [(12, remaining(12))]
        wrong += any(estimate(differences[:rounds], ERROR).p < ERROR * share for rounds, share in looks)
    assert wrong <= 2000 * ERROR * 1.3


def test_how_many_rounds_would_decide() -> None:
    assert rounds_needed(0.01, 0.05) == 4
    assert rounds_needed(0.05, 0.05) == 14
    assert student_t(ERROR / 4, 13) * 0.05 / math.sqrt(14) <= 0.05 < student_t(ERROR / 4, 12) * 0.05 / math.sqrt(13)
    assert rounds_needed(5.0, 0.05) == MOST_NEEDED
