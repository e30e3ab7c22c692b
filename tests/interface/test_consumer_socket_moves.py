"""A socket that stands still, as a record, and goes on in another process or in its own."""

import asyncio

from asgictl.interface.consumer_socket import ConsumerSocket
from asgictl.interface.handover import Gaps
from asgictl.layers.base import Position
from asgictl.wire.handover import Record
from asgictl.wire.messages import Broadcast, Disconnect, Done, Frames, Receive
from tests.conftest import scenario
from tests.interface.fakes import RecordingSocket
from tests.interface.test_consumer_socket import OPEN, Socket

EPOCH = b"e"
REPLIES, BROADCASTS = (7, 0), (5, 0)


def record_of(socket: Socket) -> Record | None:
    """Suspend; return the record, None where that cannot be."""
    suspended = socket.socket.suspend(socket.client, EPOCH, REPLIES, BROADCASTS)
    return suspended and suspended.record


def moved(
    before: Socket, read: Position = BROADCASTS, epoch: bytes = EPOCH, answered: Position = REPLIES
) -> tuple[Socket, Gaps]:
    """Move to another host, which has read broadcasts and replies so far; return it, and what it is to fetch."""
    record = record_of(before)
    assert record is not None
    before.socket.forget(before.client)
    after = Socket()
    after.client = RecordingSocket()
    after.client.is_accepted = True
    after.events.clear()
    after.socket = ConsumerSocket.of(record, after, after.client)
    return after, after.socket.restore(record, epoch, broadcasts=read, replies=answered)


def member(*groups: str) -> Socket:
    socket = Socket()
    socket.answers(accept=OPEN, joins=groups, position=(2, 0), state=b"kept")
    return socket


@scenario
async def test_a_socket_moves_with_its_state_and_its_numbers() -> None:
    before = Socket()
    before.opens()
    before.says("1", "2")
    assert record_of(before) is None, "a turn is in flight"
    before.is_quiesced = True
    before.says("3")
    before.answers(state=b"kept")
    assert len(before.events) == 2, "no turn begins any more"
    await asyncio.sleep(0.02)
    after, gaps = moved(before)
    assert not any(gaps)
    assert before.client.is_let_go
    assert not before.ended
    (event,) = after.events
    assert isinstance(event, Receive)
    assert (event.number, event.frames, event.first, event.state) == (3, ["2", "3"], 1, b"kept")
    assert event.scope == before.events[0].scope
    after.answers("echo")
    assert after.client.frames == ["echo"]
    assert after.figures.turn_seconds[-1] > 0.02, "what a frame had waited before counts"
    after.leaves()
    assert isinstance(after.events[-1], Disconnect)


@scenario
async def test_what_ends_or_has_not_begun_does_not_move_and_its_last_turns_run() -> None:
    waiting = Socket()
    assert record_of(waiting) is None
    waiting.opens()
    waiting.is_quiesced = True
    waiting.leaves()
    assert isinstance(waiting.events[-1], Disconnect)
    assert record_of(waiting) is None
    slow = Socket()
    slow.opens()
    slow.client.waiting_bytes = 1
    assert record_of(slow) is None


@scenario
async def test_a_member_is_given_each_broadcast_once() -> None:
    before = member("g")
    after, gaps = moved(before, read=(8, 0))
    assert gaps == Gaps((BROADCASTS, (8, 0)), None)
    after.says("early")
    assert after.events == [], "what it had to hear before comes first"
    after.groups.deliver(Broadcast("g", "live"), (9, 0))
    found = [(Broadcast(*each), (6 + at, 0)) for at, each in enumerate([("g", "1"), ("other", "-"), ("g", "2")])]
    found += [(Broadcast("g", "not for it", but="i/1"), (8, 0)), (Broadcast("g", "live"), (9, 0))]
    after.socket.caught_up([(Broadcast("g", "had"), BROADCASTS), *found], [])
    after.groups.deliver(Broadcast("g", "next"), (10, 0))
    assert after.client.frames == ["1", "2", "live", "next"]
    assert len(after.events) == 1


@scenario
async def test_frames_that_came_between_two_turns_are_given_once() -> None:
    before = member()
    after, gaps = moved(before, answered=(9, 0))
    assert gaps == Gaps(None, (REPLIES, (9, 0)))
    after.says("early")
    assert after.events == [], "what it had to hear before comes first"
    after.socket.answer(Frames("i/1", ["live"]), None)
    found = [(Frames("i/1", ["had"]), REPLIES), (Frames("i/1", ["1", "2"]), (8, 0)), (Frames("i/2", ["-"]), (8, 1))]
    turn = Done("i/1", 1, ["old"], b"", None, None, [], [])
    after.socket.caught_up(
        [], [*found, (turn, (8, 2)), (Frames("i/1", ["3"]), (9, 0)), (Frames("i/1", ["live"]), (9, 1))]
    )
    after.answers("echo")
    assert after.client.frames == ["1", "2", "3", "live", "echo"]


@scenario
async def test_a_process_that_has_read_less_gives_nothing_twice() -> None:
    after, gaps = moved(member("g"), read=(3, 0), answered=(6, 0))
    assert not any(gaps)
    after.groups.deliver(Broadcast("g", "old"), (4, 0))
    after.groups.deliver(Broadcast("g", "new"), (6, 0))
    assert after.client.frames == ["new"]
    assert after.socket.has_had(REPLIES)
    assert not after.socket.has_had((7, 1))


@scenario
async def test_positions_of_another_epoch_are_void() -> None:
    after, gaps = moved(member("g"), read=(1, 0), epoch=b"other", answered=(2, 0))
    assert gaps == Gaps(((0, 0), (1, 0)), ((0, 0), (2, 0)))
    assert not after.socket.has_had((1, 0))


@scenario
async def test_a_socket_that_nobody_takes_has_missed_nothing() -> None:
    socket = member("g")
    assert record_of(socket) is not None
    assert socket.client.is_suspended
    assert record_of(socket) is None, "it is on its way"
    socket.groups.deliver(Broadcast("g", "meanwhile"), (6, 0))
    assert socket.client.frames == []
    socket.socket.resume(socket.client)
    assert socket.client.frames == ["meanwhile"]
    assert not socket.client.is_suspended


@scenario
async def test_a_full_inbox_moves_and_is_not_added_to() -> None:
    before = Socket(inbox_frames=2)
    before.is_quiesced = True
    before.opens()
    before.says("1", "2", "3")
    assert before.unread == ["3"]
    record = record_of(before)
    assert record is not None
    assert record.inbox == ["1", "2"]
    before.socket.resume(before.client)
    assert before.client.is_held
    before.is_quiesced = False
    before.leaves()
