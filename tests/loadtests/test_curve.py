"""Where a side's climb ends: with sides that were made up."""

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests import curve
from asgictl.loadtests.comparison import AGAIN, Comparison
from asgictl.loadtests.curve import FIRST_RATE, MOST_STEPS, NARROW, Curve
from asgictl.loadtests.run import Run
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Side

LIMITS = {"split": 310.0, "in-process": 140.0}


def climbed(monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], made: Any = None, **more: Any) -> Curve:
    def measure(_comparison: Any, side: Side, scenario: Any, number: int, *_: Any) -> Run:
        p99 = 0.01 if scenario.rate <= limits[side.name] else 2.0
        return Run(
            side.name, scenario.name, number, rate=scenario.rate, done=100, **({"percentiles": [p99] * 9} | more)
        )

    monkeypatch.setattr(curve, "measure", made or measure)
    found = Curve(Comparison([Side(name, "") for name in limits], [], 1, 6.0, [0], [1]), SCENARIOS["hello"], 0.1)
    found.run(threading.Event(), lambda _: None, lambda _: None)
    return found


def test_it_ends_close_below_what_a_side_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(monkeypatch, LIMITS)
    for name, limit in LIMITS.items():
        assert limit / NARROW <= found.climbs[name].held <= limit
        assert len(found.climbs[name].steps) <= MOST_STEPS
    assert found.words().startswith("hello: the slowest 1% wait at most 100 ms up to 30")
    assert "requests a second with split, up to 1" in found.words()


def test_a_side_slower_than_the_first_rate_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(monkeypatch, {"split": 7.0, "in-process": 0.0})
    assert 7.0 / NARROW <= found.climbs["split"].held <= 7.0
    assert "never with in-process" in found.words()


def test_where_the_generator_is_the_limit_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(monkeypatch, {"split": 0.0}, generator=0.99)
    assert found.climbs["split"].limited
    assert len(found.climbs["split"].steps) == 1


def test_a_step_of_which_much_failed_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    assert climbed(monkeypatch, {"split": 1e9}, failed=1).climbs["split"].held == 0
    assert climbed(monkeypatch, {"split": 1e9}).climbs["split"].held == FIRST_RATE * 2 ** (MOST_STEPS - 1)


def test_a_disturbed_step_is_made_again_and_counts_as_it_is_if_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: Counter[float] = Counter()
    disturbed = {FIRST_RATE: 1, FIRST_RATE * 2: 99}  # so many times

    def measure(_comparison: Any, side: Side, scenario: Any, number: int, *_: Any) -> Run:
        tried[scenario.rate] += 1
        contention = ["a neighbour"] if tried[scenario.rate] <= disturbed.get(scenario.rate, 0) else []
        return Run(side.name, "hello", number, rate=1.0, done=9, percentiles=[0.01] * 9, contention=contention)

    found = climbed(monkeypatch, {"split": 0.0}, measure)
    assert [tried[FIRST_RATE * 2**step] for step in range(3)] == [2, 1 + AGAIN, 1]
    assert found.words().endswith(f"with split (1 of its {MOST_STEPS} steps stayed disturbed)")


def test_what_has_no_rate_has_no_curve() -> None:
    with pytest.raises(ComparisonError, match="--curve deploy: its load does not rise"):
        Curve(Comparison([], [], 1, 6.0, [0], [1]), replace(SCENARIOS["deploy"]), 0.1)
