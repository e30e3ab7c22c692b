"""One end of a socket and the other, with a connection to Redis between them that a test cuts."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgictl.layers.base import Answered, NotSent
from asgictl.layers.flow_control import RESEND_SECONDS, OrderedReceiver, OrderedSender, weight


@dataclass(frozen=True)
class Said:
    sequence: int


class Wire:
    """A sender, a link under it that answers when it is told, and what the other end passes on."""

    def __init__(self) -> None:
        self.now = 100.0
        loop: Any = asyncio.get_running_loop()
        loop.time = lambda: self.now
        self.is_up = True
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
        if self.is_up:
            self.on_its_way.append((message, answered))
        else:
            asyncio.get_running_loop().call_soon(answered, NotSent("away"))

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

    def cut(self, arrived: int = 0) -> None:
        """The connection is lost; of what was not answered the first few have arrived all the same."""
        self.is_up = False
        lost, self.on_its_way = self.on_its_way, deque()
        for index, (message, _) in enumerate(lost):
            if index < arrived:
                self._hear(message)
        for _, answered in lost:
            answered(ConnectionError("lost"))

    async def turn(self, seconds: float = 0) -> None:
        self.now += seconds
        for _ in range(4):
            await asyncio.sleep(0)


def scenario(test: Callable[[Wire], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await asyncio.wait_for(test(Wire()), 30)

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_messages_arrive_in_order(wire: Wire) -> None:
    wire.say(3)
    await wire.turn()
    wire.answer_all()
    assert wire.heard == [1, 2, 3]


@pytest.mark.parametrize("arrived", [0, 1, 2, 3])
def test_after_a_cut_what_was_not_answered_is_sent_again_and_passed_on_once(arrived: int) -> None:
    @scenario
    async def run(wire: Wire) -> None:
        wire.say(4)
        await wire.turn()
        wire.answer(b"1-0")
        wire.cut(arrived)
        wire.say()
        await wire.turn()
        wire.is_up = True
        assert not wire.on_its_way, "nothing overtakes what is to be sent again"
        await wire.turn(RESEND_SECONDS)
        assert [message.sequence for message, _ in wire.on_its_way] == [2, 3, 4, 5]
        wire.answer_all()
        assert wire.heard == [1, 2, 3, 4, 5]
        assert not wire.broken

    run()


@scenario
async def test_what_is_said_while_a_refusal_is_on_its_way_does_not_overtake_what_was_refused(wire: Wire) -> None:
    """The link comes back in the very turn of the event loop in which it has refused a message."""
    wire.is_up = False
    wire.say()
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: setattr(wire, "is_up", True))
    loop.call_soon(wire.say)
    await wire.turn()
    await wire.turn(RESEND_SECONDS)
    wire.answer_all()
    assert wire.heard == [1, 2]
    assert not wire.broken


@scenario
async def test_an_answer_from_before_a_failure_does_not_pass_for_that_of_a_later_sending(wire: Wire) -> None:
    wire.say(2)
    await wire.turn()
    (_, first), (_, second) = wire.on_its_way
    wire.on_its_way.clear()
    first(hiredis.ReplyError("LOADING"))
    await wire.turn(RESEND_SECONDS)
    second(b"1-0")
    wire.cut()
    wire.is_up = True
    await wire.turn(RESEND_SECONDS)
    assert [message.sequence for message, _ in wire.on_its_way] == [1, 2]


@scenario
async def test_an_end_that_is_no_more_is_told_once_and_nothing_is_sent_there(wire: Wire) -> None:
    wire.say(3)
    await wire.turn()
    wire.answer(b"1-0", None, None)
    assert wire.lost == 1
    wire.say()
    await wire.turn(RESEND_SECONDS)
    assert not wire.on_its_way
    await wire.sender.settle()


@scenario
async def test_settle_waits_until_redis_has_everything(wire: Wire) -> None:
    await wire.sender.settle()
    wire.say(2)
    settling = asyncio.create_task(wire.sender.settle())
    await wire.turn()
    wire.answer(b"1-0")
    await wire.turn()
    wire.cut()
    wire.is_up = True
    await wire.turn()
    assert not settling.done()
    await wire.turn(RESEND_SECONDS)
    wire.answer_all()
    await settling


@given(st.lists(st.integers(0, 6), max_size=60))
def test_whatever_is_cut_nothing_is_missing_repeated_or_out_of_order(steps: list[int]) -> None:
    async def run() -> None:
        wire = Wire()
        for step in steps:
            if step < 2:
                wire.say(step + 1)
            elif step == 2 and wire.on_its_way:
                wire.answer(b"1-0")
            elif step == 3:
                wire.cut(len(wire.on_its_way) // 2)
            elif step == 4:
                wire.is_up = True
            elif step == 5:
                await asyncio.sleep(0)
            else:
                await wire.turn(RESEND_SECONDS)
        wire.is_up = True
        for _ in range(3):
            await wire.turn(RESEND_SECONDS)
            wire.answer_all()
        assert wire.heard == list(range(1, wire.sender.next_sequence()))
        assert not wire.broken

    asyncio.run(run())


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
    wire.say(3)
    await wire.turn()
    assert [message.sequence for message, _ in wire.on_its_way] == [1]
    assert wire.lost == 1
    await asyncio.wait_for(wire.sender.settle(), 1)
    wire.answer_all()
    wire.say()
    await wire.turn()
    assert (wire.heard, wire.broken, len(wire.on_its_way)) == ([1], 0, 0)
