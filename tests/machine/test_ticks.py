"""Ticks: those of one process together, those of several apart."""

import os

import pytest

from asgictl.machine import ticks
from asgictl.machine.ticks import until_tick


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what monotonic() says, which a test may change."""
    now = [1000.0]
    monkeypatch.setattr(ticks, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("now", [1000.0, 1000.3, 1000.6, 1000.9])
def test_all_ticks_of_a_second_are_at_one_moment_and_those_of_half_a_second_among_them(
    clock: list[float], now: float
) -> None:
    clock[0] = now
    first, half = now + until_tick(1.0), now + until_tick(0.5)
    clock[0] = now + 0.05
    for seconds, apart in ((1.0, clock[0] + until_tick(1.0) - first), (0.5, first - half)):
        assert apart / seconds == pytest.approx(round(apart / seconds), abs=1e-6)


def test_a_timer_that_comes_a_moment_too_early_does_not_tick_twice(clock: list[float]) -> None:
    clock[0] += until_tick(1.0) - 0.001
    assert until_tick(1.0) == pytest.approx(1.001)


def test_processes_tick_apart(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def tick_of(pid: int) -> float:
        monkeypatch.setattr(os, "getpid", lambda: pid)
        return (clock[0] + until_tick(1.0)) % 1.0

    moments = sorted(tick_of(pid) for pid in range(500, 508))
    gaps = [later - earlier for earlier, later in zip(moments, [*moments[1:], moments[0] + 1], strict=True)]
    assert min(gaps) > 0.05
