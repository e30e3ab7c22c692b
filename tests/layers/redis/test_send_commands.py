"""What is sent outside of a commit, and may come twice."""

from hypothesis import given
from hypothesis import strategies as st

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.send_commands import MISSING, SENDERS, Broadcasts
from asgictl.wire.messages import Broadcast

KEYS = Keys("test")


def entry(sender: Broadcasts) -> list[bytes]:
    """Return the fields that a broadcast's entry has."""
    command = sender.command(KEYS, Broadcast("g", "x"))
    assert command[:3] == ("XADD", KEYS.broadcast, "*")
    return [field if isinstance(field, bytes) else str(field).encode() for field in command[3:]]


@given(st.lists(st.integers(0, 9), max_size=40))
def test_what_comes_again_is_passed_on_once_by_whoever_has_heard_it(again: list[int]) -> None:
    sender, other = Broadcasts("h.1.aa 2"), Broadcasts("h.1.aa")
    reader = Broadcasts("reader")
    entries = [entry(sender) for _ in range(10)]
    others = [entry(other) for _ in range(10)]
    assert all(reader.is_new(each) for pair in zip(entries, others, strict=True) for each in pair)
    assert not any(reader.is_new(entries[each]) or reader.is_new(others[each]) for each in again)
    assert reader.is_new(entry(sender))


@given(st.permutations(range(1, 8)))
def test_one_that_redis_has_refused_comes_later(order: list[int]) -> None:
    sender, reader = Broadcasts("h.1.aa"), Broadcasts("reader")
    entries = [entry(sender) for _ in range(8)]
    assert reader.is_new(entries[0])
    assert [reader.is_new(entries[each]) for each in order] == [True] * 7
    assert [reader.is_new(each) for each in entries] == [False] * 8


def test_what_a_commit_sends_has_no_number_and_is_new() -> None:
    reader = Broadcasts("reader")
    assert [reader.is_new([b"1", b"x"]) for _ in range(2)] == [True, True]


def test_of_very_many_senders_those_that_were_heard_last_are_known() -> None:
    reader = Broadcasts("reader")
    first, *rest = (entry(Broadcasts(str(number))) for number in range(SENDERS + 2))
    assert all(reader.is_new(each) for each in (first, *rest))
    assert not reader.is_new(rest[-1])
    assert len(reader._heard) == SENDERS


def test_numbers_that_never_come_are_not_waited_for_without_end() -> None:
    sender, reader = Broadcasts("h.1.aa"), Broadcasts("reader")
    entries = [entry(sender) for _ in range(4 * MISSING)]
    assert all(reader.is_new(each) for each in entries[::2])
    assert reader.is_new(entries[-3]), "of the newest"
    assert not reader.is_new(entries[1]), "too old"
