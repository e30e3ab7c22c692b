"""A hand-over in every order of its messages, turns and deaths, and what goes wrong where one rule is broken."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interface.handover_model import World, explore
from tests.interface.handover_surroundings import Broken, Budget, Faults

ONE, TWO = ["i/1"], ["i/1", "i/2"]


def world(connections: list[str], budget: dict[str, int], *faults: str) -> World:
    return World.of(connections, Budget(**budget), Faults(**dict.fromkeys(faults, True)))


@pytest.mark.parametrize(
    ("connections", "budget"),
    [
        (ONE, {"frames": 2, "deaths": 1}),
        (ONE, {"frames": 1, "deaths": 2}),
        (ONE, {"frames": 1, "early": 1, "deaths": 1}),
        (ONE, {"frames": 1, "trims": 1, "deaths": 1}),
        (ONE, {"frames": 1, "broadcasts": 1, "refusals": 1}),
        (ONE, {"frames": 0, "broadcasts": 2, "deaths": 1}),
        (ONE, {"frames": 0, "posts": 2, "deaths": 1}),
        (ONE, {"frames": 1, "posts": 1, "refusals": 1}),
        (ONE, {"frames": 0, "posts": 2, "trims": 1}),
        (ONE, {"frames": 1, "forgets": 1}),
        (ONE, {"frames": 1, "lates": 1, "refusals": 1}),
        (ONE, {"frames": 0, "leaves": 1, "lates": 1, "deaths": 1}),
        (TWO, {"frames": 0, "leaves": 1, "deaths": 1}),
    ],
)
def test_every_order_ends_well(connections: list[str], budget: dict[str, int]) -> None:
    states, ends = explore(world(connections, budget))
    assert states > 100, "nothing was tried"
    assert ends


@pytest.mark.slow
@pytest.mark.parametrize(
    ("connections", "budget"),
    [
        (ONE, {"frames": 1, "leaves": 1, "lates": 1, "deaths": 1}),
        (ONE, {"frames": 1, "forgets": 1, "deaths": 1}),
        (ONE, {"frames": 1, "broadcasts": 1, "deaths": 1, "refusals": 1}),
        (ONE, {"frames": 1, "posts": 2, "deaths": 1, "trims": 1}),
        (TWO, {"frames": 1, "trims": 1}),
    ],
)
def test_every_order_of_more_ends_well(connections: list[str], budget: dict[str, int]) -> None:
    assert explore(world(connections, budget))[1]


@pytest.mark.parametrize(
    ("fault", "connections", "budget", "seen"),
    [
        ("begins_early", ONE, {}, "two owners"),
        ("forgets_early", ONE, {"refusals": 1}, "closed with 1006: 0 disconnects"),
        ("cut_is_withdrawal", ONE, {"deaths": 1}, "its disconnect ran, and it lives"),
        ("keeps_claim", ONE, {"deaths": 1}, "its disconnect ran, and it lives"),
        ("controller_reaps_new", ONE, {"frames": 0, "deaths": 1, "leaves": 1}, "its disconnect ran twice"),
        ("old_trims_on", TWO, {"trims": 1}, "waits for ever"),
        ("ignores_floor", ONE, {"early": 1}, "'early1', 'echo1', 'early1'"),
        ("fetches_no_broadcasts", ONE, {"broadcasts": 1}, "got [] of 0, 1 and 0"),
        ("fetches_no_replies", ONE, {"posts": 1}, "got [] of 0, 0 and 1"),
        ("trims_at_once", ONE, {"frames": 0, "posts": 1, "trims": 1}, "got [] of 0, 0 and 1"),
        ("drops_while_suspended", ONE, {"broadcasts": 1, "refusals": 1}, "got [] of 0, 1 and 0"),
    ],
)
def test_each_rule_is_needed(fault: str, connections: list[str], budget: dict[str, int], seen: str) -> None:
    with pytest.raises(Broken) as broken:
        explore(world(connections, budget, fault))
    assert seen in str(broken.value)


budgets: Any = st.fixed_dictionaries(
    {
        "frames": st.integers(0, 4),
        "early": st.integers(0, 2),
        "posts": st.integers(0, 3),
        "broadcasts": st.integers(0, 4),
        "leaves": st.integers(0, 2),
        "deaths": st.integers(0, 2),
        "forgets": st.integers(0, 1),
        "lates": st.integers(0, 1),
        "trims": st.integers(0, 3),
        "refusals": st.integers(0, 3),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), budgets, st.integers(0, 2**32))
def test_any_order_of_much_ends_well(connections: int, budget: dict[str, int], seed: int) -> None:
    here, chance = world([f"i/{n}" for n in range(1, connections + 1)], budget), random.Random(seed)
    steps: list[str] = []
    # Whoever is rarely chosen stands still for long.
    pace = {"old": chance.random(), "new": chance.random(), "redis": chance.random()}
    while True:
        must = list(here.must())
        moves = must + (list(here.may()) if chance.random() < 0.3 or not must else [])
        if not moves:
            break
        weights = [pace.get(str(move[1]) if len(move) > 1 else move[0], 0.5) + 0.01 for move in moves]
        (move,) = chance.choices(moves, weights)
        steps.append(" ".join(map(str, move)))
        try:
            here.do(move)
        except AssertionError as error:
            raise Broken(f"{error}, after {steps}") from error
        assert len(steps) < 5000, "it never ends"
    here.check_end()
