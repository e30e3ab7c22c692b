"""Which number of threads suits a side: with runs that were made up."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from asgictl.loadtests import comparison, sweep
from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.run import Run
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Side, SideError
from asgictl.loadtests.sweep import THREADS, Sweep, at_their_best

SIDES = [Side("split", "asgictl start a:b --threads 3"), Side("gthread", "gunicorn a:b -b {bind}")]


def runs(rates: dict[int, float], p99: float = 0.1) -> dict[int, Run]:
    return {
        each: Run("split", "blocking", each, rate=rate, percentiles=[p99 / each] * 9) for each, rate in rates.items()
    }


def test_the_best_is_the_highest_rate_or_the_shortest_wait_and_all_are_told() -> None:
    best = at_their_best(SCENARIOS["blocking"], {"split": runs({1: 90, 2: 170, 4: 160}), "b": runs({1: 9})})
    assert (best.name, best.threads) == ("blocking-best", {"split": 2, "b": 1})
    assert "split 2 (1: 90/s, 2: 170/s, 4: 160/s); b 1 (1: 9/s)" in best.question
    mixed = at_their_best(SCENARIOS["django-mixed"], {"split": runs({1: 60, 4: 60})})
    assert mixed.threads == {"split": 4}


def test_a_number_that_failed_is_not_the_best() -> None:
    failed = {1: Run("split", "blocking", 1, error="it ended")}
    assert at_their_best(SCENARIOS["blocking"], {"split": failed | runs({2: 5})}).threads == {"split": 2}
    assert at_their_best(SCENARIOS["blocking"], {"split": failed}).threads == {}


@pytest.mark.parametrize("breaks", [False, True])
def test_each_number_is_tried_on_what_has_threads_to_set_before_the_rounds(
    monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    asked: list[tuple[str, str, dict[str, int]]] = []

    def measure(_comparison: Any, side: Side, scenario: Any, number: int, *_: Any) -> Run:
        asked.append((side.name, scenario.name, scenario.threads))
        if breaks and scenario.threads == {"split": 4}:
            raise SideError("not with four")
        rate = 100.0 * (1 + (scenario.threads.get("split") == 4))
        return Run(side.name, scenario.name, number, rate=rate, done=9, percentiles=[0.1] * 9)

    for module in (comparison, sweep):
        monkeypatch.setattr(module, "measure", measure)
    compared = Comparison(SIDES, [SCENARIOS["hello"], SCENARIOS["blocking"]], 1, 6.0, [0], [1])
    found = Sweep(compared)
    assert found.estimate_seconds > compared.estimate_seconds
    passed: list[float] = []
    found.run(threading.Event(), passed.append, lambda _: None)
    assert asked[: len(THREADS)] == [("split", "blocking", {"split": each}) for each in THREADS]
    assert passed == sorted(passed)
    assert [each.name for each in compared.scenarios] == ["hello", "blocking", "blocking-best"]
    assert compared.scenarios[2].threads == {"split": 1 if breaks else 4}
    assert {run.scenario for run in compared.runs} == {"hello", "blocking", "blocking-best"}


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure", lambda *_: None)
    stopping = threading.Event()
    stopping.set()
    compared = Comparison(SIDES, [replace(SCENARIOS["blocking"])], 1, 6.0, [0], [1])
    Sweep(compared).run(stopping, lambda _: None, lambda _: None)
    assert compared.runs == []
