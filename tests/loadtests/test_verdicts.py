"""What runs are said to mean."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asgictl.loadtests.run import Happening, Run
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.verdicts import Answer, Outcome, answers, decide, decided, reach

SPLIT = [14281.0, 13022.0, 15110.0, 14100.0]  # requests a second, of four rounds
OTHER = [3650.0, 3711.0, 2900.0, 3500.0]
HELLO = SCENARIOS["hello"]


def runs(side: str, rates: list[float], **more: Any) -> list[Run]:
    usual: dict[str, Any] = {"percentiles": [0.01] * 9, "cpu": {"worker": 1e6 / rates[0]}, "done": 1000}
    return [Run(side, "hello", number, rate=rate, **(usual | more)) for number, rate in enumerate(rates, 1)]


def judged(ours: list[Run], theirs: list[Run], name: str = "hello") -> Answer:
    (found,) = decide(answers(SCENARIOS[name], ours, theirs))
    return found


def test_the_winner_is_named_with_a_factor() -> None:
    found = judged(runs("split", SPLIT), runs("threads", OTHER))
    assert (found.outcome, found.winner) == (Outcome.DIFFERENT, "split")
    assert found.words == "split serves 4.1 times as many requests"
    assert reach(found) == "split 3.2 to 5.4×"
    found = judged(runs("split", OTHER), runs("threads", SPLIT))
    assert (found.winner, found.words) == ("threads", "threads serves 4.1 times as many requests")
    assert reach(found) == "threads 3.2 to 5.4×", "a factor never changes its direction"


def test_sides_within_five_percent_are_equivalent_even_where_chance_did_not_make_it() -> None:
    found = judged(runs("a", [100.0, 101, 99, 100]), runs("b", [98.0, 99, 97.1, 98]))
    assert (found.outcome, found.winner) == (Outcome.EQUIVALENT, "")
    assert found.words == "equivalent: a 1.02 to 1.02×"
    found = judged(runs("a", [100.0, 101, 99, 100]), runs("b", [101.0, 99, 100, 100.2]))
    assert found.words == "equivalent: at most a 1.02× or b 1.02×"


def test_undecided_says_what_it_would_take() -> None:
    found = judged(runs("a", [100.0, 140, 80, 90]), runs("b", [70.0, 110, 75, 95]))
    assert (found.outcome, found.winner) == (Outcome.UNDECIDED, "")
    assert found.words == "undecided: at most a 1.56× or b 1.15×; about 19 rounds would decide"


def test_a_question_that_alone_had_been_decided_leans_and_needs_a_round_more() -> None:
    leaning = Answer("s", "a", "b", "rate", factor=1.2, low=1.1, high=1.3, p=0.02, rounds=6, needed=5)
    (found,) = decide([leaning])
    assert found.words == "undecided, leaning to a 1.10 to 1.30×; about 7 rounds would decide"


def test_one_round_is_never_judged() -> None:
    found = judged(runs("a", [100.0]), runs("b", [10.0]))
    assert (found.outcome, found.words, reach(found)) == (
        Outcome.UNDECIDED,
        "undecided: one round counts, and shows no spread",
        "a 10×",
    )


def test_twenty_percent_is_found_in_four_rounds_that_vary_by_three() -> None:
    chance = random.Random(7)

    def side(name: str, rate: float) -> list[Run]:
        return runs(name, [rate * math.exp(chance.gauss(0, 0.03)) for _ in range(4)])

    found = [judged(side("a", 200), side("b", 167)) for _ in range(100)]
    assert sum(each.winner == "a" for each in found) >= 90
    assert not any(each.winner == "b" for each in found)


def test_several_questions_are_asked_at_a_price() -> None:
    barely = answers(HELLO, runs("a", [110.0, 118, 113, 121]), runs("b", [96.0, 98, 99, 100]))
    (alone,) = decide(barely)
    among = decide(barely + [replace(barely[0], scenario=str(number), p=0.9) for number in range(9)])
    assert (alone.outcome, among[0].outcome) == (Outcome.DIFFERENT, Outcome.UNDECIDED)


def test_of_latency_less_is_better() -> None:
    slow, quick = (
        [Run(side, "mixed", n, done=9, percentiles=[at + n / 1e5] * 9) for n in range(4)]
        for side, at in (("split", 0.05), ("b", 0.01))
    )
    found = judged(slow, quick, "mixed")
    assert (found.winner, found.metric) == ("b", "p99")
    assert found.words == "b is ahead: with split the slowest 1% wait 5.0 times as long"


def test_where_the_generator_was_the_limit_cost_is_judged_and_it_is_said() -> None:
    spent = [replace(run, cpu={"worker": 1e6 / run.rate}) for run in runs("split", SPLIT, generator=0.97)]
    others = [replace(run, cpu={"worker": 1e6 / run.rate}) for run in runs("threads", OTHER)]
    found = judged(spent, others)
    assert (found.metric, found.winner) == ("cost", "split")
    assert "saturated beside split (97% of a core)" in found.notes[0]


def test_a_side_that_answers_most_with_an_error_at_once_wins_nothing() -> None:
    quick = runs("b", SPLIT, failed=4000, errors={"request: 503": 4000})
    found = judged(runs("split", OTHER), quick)
    assert (found.winner, found.words) == ("", "no winner: b did not answer 80% of what was due")
    assert found.notes == ("b: 80% failed, most often request: 503",)
    assert decided(found)
    found = judged(runs("split", SPLIT), runs("b", OTHER, failed=4000, errors={"request: 503": 4000}))
    assert found.winner == "split", "who is ahead anyway has not won by failing"
    close = runs("b", [0.99 * rate for rate in SPLIT], failed=4000, errors={"request: 503": 4000})
    assert judged(runs("split", SPLIT), close).words == "no winner: b did not answer 80% of what was due"


def test_what_was_due_and_never_sent_counts_as_failed() -> None:
    found = judged(runs("split", OTHER), runs("b", SPLIT, unsent=2))
    assert found.words == "no winner: b did not answer 0.2% of what was due"
    assert found.notes == ("b: 8 were due and never sent",)


def test_a_disturbed_round_is_not_counted_on_either_side() -> None:
    ours, theirs = runs("split", SPLIT), runs("b", OTHER)
    theirs[1] = replace(theirs[1], contention=["a neighbour"], rate=1e9)
    found = judged(ours, theirs)
    assert (found.rounds, found.winner) == (3, "split")
    assert found.notes == ("not counted, since something disturbed them: rounds 2",)
    nothing = judged([replace(run, contention=["a neighbour"]) for run in ours], theirs)
    assert (nothing.winner, nothing.words) == ("", "undecided: every round was disturbed")


def test_recorded_rounds_of_equal_sides_beside_neighbours_have_no_winner() -> None:
    recorded = json.loads(Path(__file__).with_name("recorded_neighbours.json").read_text())["runs"]
    found = [Run(**each) for each in recorded]
    one, other = ([run for run in found if run.side == side] for side in ("one", "other"))
    assert all(run.contention for run in found)
    assert judged(one, other).words == "undecided: every round was disturbed"
    one, other = ([replace(run, contention=[]) for run in runs] for runs in (one, other))
    unnoticed = judged(one, other)
    assert unnoticed.outcome is Outcome.UNDECIDED, "three rounds that vary so show nothing either"


def test_a_side_that_failed_or_answered_nothing_is_not_compared() -> None:
    found = judged([Run("split", "hello", 1, error="it ended")], runs("b", SPLIT))
    assert (found.words, found.notes) == ("not compared: split failed", ("split: it ended",))
    silent = [replace(run, rate=0, done=0, failed=9, errors={"refused": 9}) for run in runs("b", [1, 1, 1, 1])]
    found = judged(runs("split", SPLIT), silent)
    assert found.words == "not compared: b answered nothing"


def test_memory_is_judged_by_what_is_held_in_the_end_and_its_growth_is_told() -> None:
    ours, theirs = (
        [Run(side, "leak", n, done=10**5, memory={"worker": held + n / 10}, grown=grown) for n in range(4)]
        for side, held, grown in (("a", 200.0, -0.5), ("b", 300.0, 80.0))
    )
    found = judged(ours, theirs, "leak")
    assert (found.winner, found.words) == ("a", "a is ahead: b ends with 1.50 times as much memory")
    assert found.notes[1] == "b: memory grew by +80.0 MiB in the last three quarters of 100,000 events"


def deployed(side: str, affected: list[int], **more: Any) -> list[Run]:
    return [
        Run(side, "deploy", number, done=900, happenings=[Happening("deploy", 2.5, "asgictl reload", count, **more)])
        for number, count in enumerate(affected, 1)
    ]


def test_users_who_noticed_are_counted() -> None:
    found = judged(deployed("split", [0, 0], gap=0.02), deployed("b", [20, 19], gap=1.234), "deploy")
    assert (found.winner, found.words) == (
        "split",
        "split is ahead: users who noticed: split 0, b 39 of 80; longest without service: split 0.02 s, b 1.23 s",
    )
    assert found.notes == ("split by asgictl reload, b by asgictl reload",)


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ([0, 0], [0, 0], Outcome.EQUIVALENT),
        ([0, 0], [1, 1], Outcome.UNDECIDED),  # too few to matter
        ([0, 0, 0, 0], [2, 2, 3, 2], Outcome.DIFFERENT),  # few, but each time
        ([20, 20], [20, 20], Outcome.UNDECIDED),  # equal, but two rounds do not show that it stays so
        ([20, 21, 20, 20, 20], [20, 20, 20, 20, 21], Outcome.EQUIVALENT),
        ([3, 9], [12, 4], Outcome.UNDECIDED),  # one round says this, the other that
        ([0], [20], Outcome.UNDECIDED),  # one round shows no spread
    ],
)
def test_counts_have_an_exact_test_with_a_floor(ours: list[int], theirs: list[int], outcome: Outcome) -> None:
    assert judged(deployed("a", ours), deployed("b", theirs), "deploy").outcome is outcome


def test_what_a_side_does_not_have_cannot_be_killed() -> None:
    lacking = [
        Run("b", "deploy", number, happenings=[Happening("deploy", None, note="is ended by SIGHUP")])
        for number in (1, 2)
    ]
    found = judged(deployed("split", [0, 0]), lacking, "deploy")
    assert (found.words, found.winner) == ("not compared: b is ended by SIGHUP", "")


def test_what_ran_twice_is_told() -> None:
    found = judged([replace(run, twice=2) for run in deployed("split", [0, 0])], deployed("b", [0, 0]), "deploy")
    assert found.notes[1:] == ("split: 4 of 1,800 requests and messages ran twice",)


def test_each_thing_that_was_done_has_an_answer_of_its_own() -> None:
    ours, theirs = (
        [Run(side, "crash", n, happenings=[Happening(kind, 2.5, "", count) for kind, count in felt]) for n in (1, 2)]
        for side, felt in (
            ("split", [("application", 0), ("connections", 20), ("redis", 0)]),
            ("b", [("application", 20), ("connections", 20), ("redis", 0)]),
        )
    )
    found = {each.happening: each for each in decide(answers(SCENARIOS["crash"], ours, theirs))}
    assert found["application"].winner == "split"
    assert found["connections"].outcome is Outcome.UNDECIDED
    assert found["redis"].outcome is Outcome.EQUIVALENT
    assert found["master"].words.startswith("not compared")
