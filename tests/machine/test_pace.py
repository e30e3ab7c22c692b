"""So many a second, and faster where it must be."""

import asyncio
from collections import deque
from math import inf

import pytest

from asgictl.machine.pace import STEP_SECONDS, spread
from tests.conftest import scenario


class Clock:
    """The loop's time, which only sleeping lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.seen: list[float] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("asgictl.machine.pace.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def act(self, _item: int) -> None:
        self.seen.append(self.now)


def per_second(seen: list[float]) -> float:
    return len(seen) / (seen[-1] - seen[0] + STEP_SECONDS)


@pytest.mark.parametrize("rate", [0.5, 7, 20, 500, 5000])
def test_so_many_a_second(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run() -> None:
        clock = Clock(monkeypatch)
        count = max(int(rate * 4), 10)
        await spread(deque(range(count)), clock.act, rate, inf)
        assert len(clock.seen) == count
        assert per_second(clock.seen) == pytest.approx(rate, rel=0.15)
        in_a_step = max(clock.seen.count(each) for each in set(clock.seen))
        assert in_a_step <= max(rate * STEP_SECONDS, 1) + 1
        monkeypatch.undo()

    run()


def test_faster_where_the_end_would_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run() -> None:
        clock = Clock(monkeypatch)
        await spread(deque(range(1000)), clock.act, 1, 10)
        assert clock.seen[-1] <= 10 + STEP_SECONDS
        assert clock.seen[500] > 3
        monkeypatch.undo()

    run()


@scenario
async def test_at_once_when_there_is_no_time() -> None:
    seen: list[int] = []
    await spread(deque(range(1000)), seen.append, 1, 0)
    assert len(seen) == 1000
