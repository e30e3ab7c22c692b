"""Connections that have much to parse share each turn of the event loop."""

import asyncio
import time
from contextvars import copy_context
from itertools import pairwise
from typing import Any, cast

from asgictl.config import Limits
from asgictl.interface.edge import Edge
from asgictl.interface.limits import TURN_SECONDS
from tests.conftest import scenario


class Backend:
    limits = Limits()


class Flooding:
    """A connection that always has more."""

    def __init__(self, edge: Edge, name: str, order: list[str]) -> None:
        self.edge, self.name, self.order = edge, name, order
        self.most_seconds = 0.0

    def parse_on(self, until: float) -> None:
        self.order.append(self.name)
        self.most_seconds = max(self.most_seconds, until - time.monotonic())
        while time.monotonic() < until:
            pass
        self.edge.parse_soon(self)


def edge_here() -> Edge:
    edge = Edge(cast(Any, Backend()), "")
    edge.loop, edge.context = asyncio.get_running_loop(), copy_context()
    return edge


@scenario
async def test_those_that_flood_take_turns_and_the_loop_goes_on() -> None:
    edge, order = edge_here(), list[str]()
    flooding = [Flooding(edge, name, order) for name in "abc"]
    for each in flooding:
        edge.parse(each)
    ran = [len(order)]
    for _ in range(20):
        await asyncio.sleep(0)
        ran.append(len(order))
    assert order[0] == "a", "at once, as nobody waited"
    assert "".join(order[1:10]) == "abcabcabc"
    assert max(each.most_seconds for each in flooding) <= TURN_SECONDS, "the first alone, then a part of it each"
    assert max(after - before for before, after in pairwise(ran)) <= len(flooding) + 1, "in a turn of the loop"


@scenario
async def test_one_that_fails_keeps_nobody_from_parsing() -> None:
    class Failing:
        def parse_on(self, until: float) -> None:
            raise ZeroDivisionError

    edge, order, told = edge_here(), list[str](), list[object]()
    edge.loop.set_exception_handler(lambda _loop, context: told.append(context.get("exception")))
    for each in (Failing(), Flooding(edge, "a", order)):
        edge.parse_soon(each)
    for _ in range(3):
        await asyncio.sleep(0)
    assert [type(each) for each in told] == [ZeroDivisionError]
    assert order[:1] == ["a"]
