"""Sockets are closed one after another, within a part of the drain."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from asgictl.config import Limits
from asgictl.interface.drain import Leaving, close_sockets
from tests.conftest import scenario


class Socket:
    is_closed = False

    def restart(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def closing(sockets: list[Socket], limits: Limits) -> AsyncIterator[deque[Leaving]]:
    leaving: deque[Leaving] = deque(sockets)
    task = asyncio.create_task(close_sockets(leaving, limits))
    yield leaving
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def closed(sockets: list[Socket], count: int) -> None:
    while sum(each.is_closed for each in sockets) < count:  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)


@scenario
async def test_none_is_closed_before_other_processes_have_left_the_listener() -> None:
    sockets = [Socket()]
    async with closing(sockets, Limits()):
        await asyncio.sleep(0.05)
        assert not sockets[0].is_closed
        await closed(sockets, 1)


@scenario
async def test_they_are_closed_one_after_another() -> None:
    sockets = [Socket() for _ in range(1000)]
    async with closing(sockets, Limits(drain_rate=50)):
        await closed(sockets, 3)
        assert not sockets[-1].is_closed


@scenario
async def test_all_are_closed_before_the_drain_ends() -> None:
    sockets = [Socket() for _ in range(1000)]
    async with closing(sockets, Limits(drain_rate=1, drain_seconds=0.6)):
        await closed(sockets, 1000)


@scenario
async def test_one_that_comes_meanwhile_is_closed_too() -> None:
    sockets = [Socket(), Socket()]
    async with closing(sockets[:1], Limits(drain_seconds=1)) as leaving:
        await closed(sockets, 1)
        leaving.append(sockets[1])
        await closed(sockets, 2)
