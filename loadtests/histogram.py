"""A histogram of durations, as HDR histograms are: every sample is counted, to a constant relative precision."""

from collections import Counter
from math import log2

STEPS = 128  # buckets for each doubling: a percentile is within 0.3% of its sample


class Histogram(Counter[int]):
    """How many samples fell into each bucket; added together with `+=` or update()."""

    def record(self, seconds: float) -> None:
        """Count a sample; under a microsecond counts as one."""
        self[int(log2(max(seconds * 1e6, 1)) * STEPS)] += 1

    def percentile(self, percent: float) -> float:
        """Return the seconds that `percent` of the samples did not exceed; NaN without samples."""
        rank, passed = percent / 100 * self.total(), 0
        for bucket in sorted(self):
            passed += self[bucket]
            if passed >= rank:
                return float(2 ** ((bucket + 0.5) / STEPS) / 1e6)
        return float("nan")
