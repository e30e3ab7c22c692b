"""Percentiles of what was counted."""

import math
import random

import pytest

from asgictl.loadtests.histogram import Histogram


def test_percentiles_are_within_a_third_of_a_percent_of_the_samples() -> None:
    samples = sorted(random.Random(1).lognormvariate(-6, 2) for _ in range(10_000))
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    for percent in (1, 50, 90, 99, 99.9, 100):
        exact = samples[max(0, math.ceil(len(samples) * percent / 100) - 1)]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.003)


def test_added_histograms_hold_the_samples_of_both() -> None:
    one, two = Histogram(), Histogram()
    one.record(0.001)
    two.record(1.0)
    one.update(two)
    assert one.total() == 2
    assert one.percentile(100) == pytest.approx(1.0, rel=0.003)
    assert one.percentile(50) == pytest.approx(0.001, rel=0.003)


def test_what_takes_no_time_counts_and_nothing_has_no_percentile() -> None:
    histogram = Histogram()
    assert math.isnan(histogram.percentile(50))
    histogram.record(0)
    assert histogram.percentile(50) == pytest.approx(1e-6, rel=0.003)
