"""What an event's handler produces."""

from contextvars import copy_context
from typing import Any

import pytest

from asgictl.app.outcome import Outcome, current, frame_of
from asgictl.errors import ConsumerError
from asgictl.wire.messages import Broadcast, Frames, Sent
from tests.plain import TEXTS, Bytes


def test_a_frame_is_the_one_that_was_given() -> None:
    assert frame_of("", None) == ""
    assert frame_of(None, b"") == b""


@pytest.mark.parametrize(("text", "data"), [(None, None), ("x", b"x"), (b"x", None), (None, "x"), (1, None)])
def test_anything_else_than_one_frame_is_refused(text: Any, data: Any) -> None:
    with pytest.raises(ConsumerError, match=r"text=.*data="):
        frame_of(text, data)


def test_text_that_utf8_cannot_carry_is_the_consumers_fault() -> None:
    with pytest.raises(ConsumerError):
        frame_of("\ud800", None)


def test_outside_of_an_event_there_is_no_outcome() -> None:
    assert current() is None


@pytest.mark.parametrize(("status", "count"), [(200, 1), (404, 1), (500, 0), (503, 1), (504, 0)])
def test_a_view_that_fails_sends_nothing(status: int, count: int) -> None:
    outcome = Outcome(sends=[Broadcast("g", "x")])
    assert len(outcome.sent_with(status, cut_off=False)) == count
    assert outcome.sent_with(status, cut_off=True) == []


def test_collecting_ends_with_its_block_even_by_an_exception() -> None:
    outer, inner = Outcome(), Outcome()

    def handler() -> None:
        with inner:
            assert current() is inner
            raise ValueError("theirs")

    with outer:
        with pytest.raises(ValueError, match="theirs"):
            handler()
        assert current() is outer
    assert current() is None


def test_what_outlives_its_handler_is_outside_of_the_event() -> None:
    with Outcome():
        context = copy_context()
        assert context.run(current) is not None
    assert context.run(current) is None


def test_what_is_sent_now_leaves_without_waiting_for_the_rest() -> None:
    sent: list[Frames | Sent] = []
    outcome = Outcome(sent.append)
    outcome.send_now(Broadcast("g", "x"))
    assert sent == [Broadcast("g", "x")]
    assert outcome.sends == []


def test_where_nothing_can_be_sent_now_the_consumer_is_told() -> None:
    with pytest.raises(ConsumerError, match="immediately=True"):
        Outcome().send_now(Broadcast("g", "x"))


def test_a_redis_that_is_away_is_the_senders_to_handle() -> None:
    def away(_sent: object) -> None:
        raise ConnectionResetError("Redis was lost")

    with pytest.raises(OSError, match="Redis was lost"):
        Outcome(away).send_now(Frames("i/1", ["x"]))


def test_of_the_calls_for_one_group_the_last_counts() -> None:
    outcome = Outcome()
    outcome.memberships += [("a", True), ("b", False), ("a", False), ("c", True), ("b", True), ("c", True)]
    assert (outcome.groups(joined=True), outcome.groups(joined=False)) == (["c", "b", "c"], ["a"])


@pytest.mark.parametrize("text", TEXTS)
def test_a_frame_is_plain(text: str) -> None:
    for frame, kind in ((frame_of(text, None), str), (frame_of(None, Bytes(b"hello")), bytes)):
        assert type(frame) is kind


@pytest.mark.parametrize("data", [bytearray(b"x"), memoryview(b"x"), "x"])
def test_data_is_bytes_alone(data: Any) -> None:
    with pytest.raises(ConsumerError, match="takes bytes"):
        frame_of(None, data)


JOIN, LEAVE = True, False


@pytest.mark.parametrize(
    ("calls", "own", "replies", "but"),
    [
        (["sent", LEAVE], ["sent"], [], ""),
        (["sent", JOIN], ["sent"], [], "i/1"),
        ([JOIN, "sent"], [], [], ""),
        ([LEAVE, "sent"], [], [], ""),
        ([JOIN, "sent", LEAVE], [], ["sent"], ""),
        ([LEAVE, "sent", JOIN], [], [], "i/1"),
        (["sent"], [], [], ""),
    ],
)
def test_a_connection_that_moves_gets_what_was_sent_while_it_was_a_member(
    calls: list[str | bool], own: list[str], replies: list[str], but: str
) -> None:
    outcome = Outcome()
    for call in calls:
        if isinstance(call, bool):
            outcome.memberships.append(("g", call))
        else:
            outcome.send(Broadcast("other", "x"))
            outcome.send(Broadcast("g", call))
    assert outcome.own_copies("i/1") == [("g", frame) for frame in own]
    assert outcome.frames == replies
    assert outcome.sends == [Broadcast("other", "x"), Broadcast("g", "sent", but=but)]
