"""What is sent outside of a commit, and may come twice; and what is kept."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgictl.config import RECORD_SECONDS, RECORDS_BYTES
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.send_commands import MISSING, SENDERS, Broadcasts, send_command
from asgictl.wire.messages import Broadcast
from asgictl.wire.records import JobRecord, Stage, new_id

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


def kept(client: Any, keys: Keys) -> dict[str, tuple[int, bytes]]:
    """Return the records by their ids; fails unless the bytes that are counted are theirs."""
    counter, *members = client.zrange(keys.records, 0, -1) or [b"! 0"]
    assert int(counter.removeprefix(b"! ")) == sum(map(len, members)) + 100 * len(members)
    split = [member.split(b" ", 2) for member in members]
    return {id.decode(): (int(stage), content) for id, stage, content in split}


def keep(client: Any, keys: Keys, record: JobRecord, most_bytes: int = RECORDS_BYTES) -> None:
    _, script, *rest = send_command(keys, record)
    text = str(script).replace(f"most_bytes = {RECORDS_BYTES}", f"most_bytes = {most_bytes}")
    client.execute_command("EVAL", text, *rest)


def test_a_record_replaces_one_of_the_same_stage_or_an_earlier_one(client: Any, name: str) -> None:
    keys, id = Keys(name), new_id(0)
    said = [(Stage.READY, b"a"), (Stage.RUNNING, b"long"), (Stage.RUNNING, b"b"), (Stage.READY, b"late")]
    for stage, content in (*said, (Stage.FINISHED, b"c d"), (Stage.FINISHED, b"c d"), (Stage.RUNNING, b"late")):
        keep(client, keys, JobRecord(id, stage, content))
        keep(client, keys, JobRecord(new_id(0), Stage.READY, b"other"))
    assert kept(client, keys)[id] == (2, b"c d")
    assert len(kept(client, keys)) == 8


def test_records_past_their_time_or_their_bytes_go_the_oldest_first(client: Any, name: str) -> None:
    keys = Keys(name)
    old = [new_id(-RECORD_SECONDS - 1) for _ in range(3)]
    ids = [new_id(number) for number in range(9)]
    for id in reversed(old + ids):
        keep(client, keys, JobRecord(id, Stage.READY, b"x" * 1000))
    assert list(kept(client, keys)) == ids
    keep(client, keys, JobRecord(new_id(9), Stage.READY, b"x" * 2000), most_bytes=5000)
    assert list(kept(client, keys))[:-1] == ids[-2:]
    assert 0 < client.pttl(keys.records) <= (RECORD_SECONDS + 9) * 1000


def test_a_record_that_is_over_before_it_is_kept_leaves_nothing(client: Any, name: str) -> None:
    keys = Keys(name)
    keep(client, keys, JobRecord(new_id(-RECORD_SECONDS - 1), Stage.FINISHED, b"x"))
    assert not client.exists(keys.records)
