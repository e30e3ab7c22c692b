"""One end of a socket and the other, with a layer between them that says again what a test cuts."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgictl.layers.base import Answered
from asgictl.layers.flow_control import Credit, OrderedReceiver, OrderedSender, Window, weight


@dataclass(frozen=True)
class Said:
    sequence: int


class Wire:
    """A sender, a layer that answers when it is told and says again what a cut left unanswered, and the other end."""

    def __init__(self) -> None:
        self.on_its_way: deque[tuple[Said, Answered]] = deque()
        self.heard: list[int] = []
        self.lost = 0  # how often this end was told that the other is no more
        self.broken = 0  # how often the other end was told that something is missing
        self.sender: OrderedSender[Said] = OrderedSender(self._add, self._lose)
        self._far = OrderedReceiver(self._break)

    def _lose(self) -> None:
        self.lost += 1

    def _break(self) -> None:
        self.broken += 1

    def _add(self, message: Said, answered: Answered) -> None:
        self.on_its_way.append((message, answered))

    def _hear(self, message: Said) -> None:
        if self._far.is_next(message.sequence):
            self.heard.append(message.sequence)

    def say(self, times: int = 1) -> None:
        for _ in range(times):
            self.sender.send(Said(self.sender.next_sequence()))

    def answer(self, *replies: object) -> None:
        for reply in replies:
            message, answered = self.on_its_way.popleft()
            if isinstance(reply, bytes):
                self._hear(message)
            answered(reply)

    def answer_all(self) -> None:
        self.answer(*[b"1-0"] * len(self.on_its_way))

    def cut(self, arrived: int) -> None:
        """The connection is lost, but the first few have arrived: they come again."""
        for message, _ in list(self.on_its_way)[:arrived]:
            self._hear(message)


def scenario(test: Callable[[Wire], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await asyncio.wait_for(test(Wire()), 60)

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_messages_arrive_in_order(wire: Wire) -> None:
    wire.say(3)
    wire.answer_all()
    assert wire.heard == [1, 2, 3]


@pytest.mark.parametrize("arrived", [0, 1, 2, 3])
def test_what_comes_again_after_a_cut_is_passed_on_once(arrived: int) -> None:
    @scenario
    async def run(wire: Wire) -> None:
        wire.say(4)
        wire.answer(b"1-0")
        wire.cut(arrived)
        wire.say()
        assert [message.sequence for message, _ in wire.on_its_way] == [2, 3, 4, 5]
        wire.answer_all()
        assert wire.heard == [1, 2, 3, 4, 5]
        assert not wire.broken

    run()


@pytest.mark.parametrize("end", [None, RuntimeError("NOPERM"), ConnectionError("closed")])
def test_an_end_that_is_no_more_is_told_once_and_nothing_is_sent_there(end: object) -> None:
    """A message that was refused is missing from the sequence: so is what stands behind it."""

    @scenario
    async def run(wire: Wire) -> None:
        wire.say(3)
        wire.answer(b"1-0", end, end)
        assert wire.lost == 1
        wire.say()
        assert not wire.on_its_way
        await wire.sender.settle()

    run()


@pytest.mark.parametrize("end", [b"1-0", None])
def test_settle_waits_until_the_layer_has_everything_or_the_end_is_no_more(end: object) -> None:
    @scenario
    async def run(wire: Wire) -> None:
        await wire.sender.settle()
        wire.say(2)
        settling = asyncio.create_task(wire.sender.settle())
        await asyncio.sleep(0)
        wire.answer(b"1-0")
        await asyncio.sleep(0)
        assert not settling.done()
        wire.answer(end)
        await settling

    run()


@given(st.lists(st.integers(0, 4), max_size=60))
def test_whatever_is_cut_nothing_is_missing_repeated_or_out_of_order(steps: list[int]) -> None:
    wire = Wire()
    for step in steps:
        if step < 2:
            wire.say(step + 1)
        elif step == 2 and wire.on_its_way:
            wire.answer(b"1-0")
        else:
            wire.cut(len(wire.on_its_way) // (step - 1))
    wire.answer_all()
    assert wire.heard == list(range(1, wire.sender.next_sequence()))
    assert not wire.broken


def test_a_gap_is_told_once_and_nothing_behind_it_is_passed_on() -> None:
    told: list[int] = []
    far = OrderedReceiver(lambda: told.append(1))
    assert [far.is_next(sequence) for sequence in (1, 2, 2, 1, 4, 3, 5)] == [True, True, *[False] * 5]
    assert told == [1]


def test_empty_frames_count_too() -> None:
    assert weight("") == weight(b"") > 0
    assert weight("xy") == weight("") + 2


@scenario
async def test_what_cannot_be_added_is_forgotten_and_ends_it(wire: Wire) -> None:
    """Its number is missing from the sequence, so nothing may follow."""

    def refuse(message: Said, answered: Answered) -> None:
        if message.sequence == 2:
            raise TypeError("cannot be encoded")
        wire._add(message, answered)

    wire.sender = OrderedSender(refuse, wire._lose)
    wire.say(2)
    assert wire.lost == 0, "never before it returns"
    await asyncio.wait_for(wire.sender.settle(), 1)
    assert wire.lost == 1
    wire.say()
    assert [message.sequence for message, _ in wire.on_its_way] == [1]


@given(st.lists(st.integers(0, 400), min_size=1), st.sampled_from([2, 4]), st.booleans())
def test_a_window_bounds_what_is_on_its_way_and_never_runs_dry(sizes: list[int], share: int, is_granted: bool) -> None:
    """What was sent and not taken is at most the window and one message; when all was taken, more may be sent."""
    window, credit = Window(1000, share, is_granted=is_granted), Credit(1000 if is_granted else 0)
    on_its_way: deque[int] = deque()
    for size in sizes:
        while credit.is_spent:
            if on_its_way:
                window.take(on_its_way.popleft())
            credit.grant(window.due())
            assert on_its_way or not credit.is_spent, "it ran dry"
        credit.spend(size)
        on_its_way.append(size)
        assert sum(on_its_way) <= 1000 + size


def test_little_is_not_worth_a_message() -> None:
    window = Window(1000, 4, is_granted=True)
    window.take(249)
    assert window.due() == 0
    window.take(1)
    assert (window.due(), window.due()) == (250, 0)
