"""Which rounds are run, and when a scenario has enough: with runs that were made up."""

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asgictl.loadtests import comparison
from asgictl.loadtests.comparison import MOST_DISTURBED, Comparison, NotServing, block, ran_twice
from asgictl.loadtests.run import Happening, Run
from asgictl.loadtests.scenarios import MOST_ROUNDS, SCENARIOS
from asgictl.loadtests.servers import Side
from asgictl.loadtests.verdicts import Outcome

SIDES = [Side("split", ""), Side("in-process", "")]


class Made:
    """Stands for measure(): rates by side, with noise; disturbed where it is told to be."""

    def __init__(self, rates: dict[str, float], noise: float = 0.01) -> None:
        self.rates, self.noise, self.chance = rates, noise, random.Random(3)
        self.order: list[str] = []
        self.disturbed: set[int] = set()
        self.affected: dict[str, int] = {}

    def __call__(self, _comparison: Any, side: Side, scenario: Any, number: int, *_: Any) -> Run:
        self.order.append(side.name)
        rate = self.rates[side.name] * (1 + self.chance.gauss(0, self.noise))
        happenings = [Happening(kind, 2.5, "", self.affected.get(side.name, 0)) for kind in scenario.happenings]
        contention = ["a neighbour"] if number in self.disturbed else []
        return Run(side.name, scenario.name, number, rate=rate, done=9, percentiles=[0.1] * 9, cpu={"worker": 1 / rate},
                   happenings=happenings, contention=contention)  # fmt: skip


def compared(monkeypatch: pytest.MonkeyPatch, made: Any, *names: str, **more: Any) -> Comparison:
    monkeypatch.setattr(comparison, "measure", made)
    found = Comparison(SIDES, [SCENARIOS[name] for name in names], **({"rounds": MOST_ROUNDS} | more), duration=10.0,
                       server_cores=[0], load_cores=[1])  # fmt: skip
    found.run(threading.Event(), lambda _: None, lambda _: None)
    return found


def test_a_block_is_both_orders() -> None:
    chance = random.Random(1)
    orders = {tuple(side.name for order in block(SIDES, chance) for side in order) for _ in range(20)}
    assert orders == {("split", "in-process", "in-process", "split"), ("in-process", "split", "split", "in-process")}


def test_a_scenario_ends_at_the_first_look_that_decides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Made({"split": 200.0, "in-process": 100.0}), "hello")
    assert len(found.runs) == 2 * 4
    assert [each.winner for each in found.answers()] == ["split"]


def test_what_chance_may_have_made_gets_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Made({"split": 100.0, "in-process": 108.0}, noise=0.3), "hello")
    assert len(found.runs) == 2 * MOST_ROUNDS


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03, 0.2])
def test_equal_sides_never_differ_and_are_equivalent_in_most(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    made = Made({"split": 100.0, "in-process": 100.0}, noise)
    found = [compared(monkeypatch, made, "hello").answers()[0].outcome for _ in range(20)]
    assert Outcome.DIFFERENT not in found
    assert noise > 0.03 or found.count(Outcome.EQUIVALENT) > 10


def test_a_count_is_looked_at_after_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 1.0, "in-process": 1.0})
    made.affected = {"in-process": 20}
    found = compared(monkeypatch, made, "deploy")
    assert len(found.runs) == 2 * 2
    assert [each.winner for each in found.answers()] == ["split"]


def test_a_disturbed_round_is_named_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 200.0, "in-process": 100.0})
    made.disturbed = {2}
    found = compared(monkeypatch, made, "hello")
    assert sorted({run.round for run in found.runs}) == [1, 2, 3, 4, 5]
    assert found.complaints == ["hello, round 2 is not counted: split: a neighbour; in-process: a neighbour"] or (
        found.complaints == ["hello, round 2 is not counted: in-process: a neighbour; split: a neighbour"]
    )
    assert found.answers()[0].rounds == 4


def test_where_the_generator_is_the_limit_sides_are_compared_at_a_rate_that_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made({"split": 1000.0, "in-process": 5000.0})

    def measure(comparison: Any, side: Side, scenario: Any, *told: Any) -> Run:
        return replace(made(comparison, side, scenario, *told), generator=0.2 if scenario.rate else 0.97)

    found = compared(monkeypatch, measure, "hello")
    (scenario,) = found.scenarios
    assert scenario.metrics == ("cost", "p99")
    assert scenario.rate == pytest.approx(600, rel=0.05)
    assert "the load generator was the limit" in found.complaints[0]
    assert len(found.runs) == 2 * 4
    assert [(each.metric, each.winner) for each in found.answers()] == [("cost", "in-process")]


def test_a_neighbour_that_stays_ends_the_scenario_without_a_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 200.0, "in-process": 100.0})
    made.disturbed = set(range(1, 99))
    found = compared(monkeypatch, made, "hello", "cpu")
    assert len(found.runs) == 2 * 2 * MOST_DISTURBED
    assert [(each.winner, each.words) for each in found.answers()] == [("", "undecided: every round was disturbed")] * 2


def test_a_neighbour_that_goes_costs_the_rounds_that_it_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 200.0, "in-process": 100.0})
    made.disturbed = set(range(1, MOST_DISTURBED))
    found = compared(monkeypatch, made, "hello")
    assert [(each.winner, each.rounds) for each in found.answers()] == [("split", 4)]


def test_no_round_begins_that_would_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(monkeypatch, Made({"split": 1.0, "in-process": 1.0}), "hello", "cpu", seconds_at_most=1.0)
    assert len(found.runs) == 2 * 2, "one round of each, for something has to be said"


def test_a_side_that_does_not_start_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 1.0})
    tried: list[str] = []

    def measure(comparison: Any, side: Side, *told: Any) -> Run:
        tried.append(side.name)
        if side.name == "in-process":
            raise NotServing("no module")
        return made(comparison, side, *told)

    found = compared(monkeypatch, measure, "hello", "cpu")
    assert tried.count("in-process") == 1
    assert {each.words for each in found.answers()} == {"not compared: in-process failed"}
    assert tried.count("split") == 2 * 2, "a block, and no more"


def test_what_ran_twice_stands_twice_among_the_notes(tmp_path: Path) -> None:
    assert ran_twice(tmp_path / "notes") == 0
    (tmp_path / "notes").write_text("request-1-1\nrequest-1-2\nrequest-1-1\nmessage-1-1\nrequest-1-1\n")
    assert ran_twice(tmp_path / "notes") == 2


def test_a_side_takes_part_where_it_has_something_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made({"split": 1.0, "in-process": 1.0, "gunicorn": 1.0})
    monkeypatch.setattr(comparison, "measure", made)
    sides = [*SIDES, Side("gunicorn", "", part="deploy")]
    found = Comparison(sides, [SCENARIOS["hello"], SCENARIOS["deploy"]], 2, 10.0, [0], [1])
    found.run(threading.Event(), lambda _: None, lambda _: None)
    assert {run.scenario for run in found.runs if run.side == "gunicorn"} == {"deploy"}
    assert [(each.scenario, each.other) for each in found.answers()] == [
        ("hello", "in-process"), ("deploy", "in-process"), ("deploy", "gunicorn"),
    ]  # fmt: skip
    assert found.round_seconds(SCENARIOS["deploy"]) == 3 * (15 + 1 + 4)


def test_more_than_one_thing_is_done_to_a_side_one_after_the_other() -> None:
    found = Comparison(SIDES, [], 1, 6.0, [0], [1])
    assert found.seconds(SCENARIOS["hello"]) == 6.0
    assert found.seconds(SCENARIOS["deploy"]) == 15
    assert found.seconds(SCENARIOS["crash"]) == 22.5
    assert replace(found, duration=60.0).seconds(SCENARIOS["deploy"]) == 60.0
