"""What processes say of themselves in Redis."""

from typing import Any

from asgictl.layers.redis import process_records as module
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat
from asgictl.layers.redis.process_records import read_records, record_command


def test_each_process_has_its_newest_record_until_it_deregisters(client: Any, name: str) -> None:
    keys = Keys(name)
    client.flushall()
    assert read_records(client, keys).records == []
    for id, record in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        client.execute_command(*record_command(keys, id, record))
    found = read_records(client, keys)
    assert sorted(record for _, record in found.records) == [b"2", b"3"]
    assert all(0 <= heard < 5 for heard, _ in found.records)
    client.execute_command(*record_command(keys, "b", b""))
    assert [record for _, record in read_records(client, keys).records] == [b"3"]


def test_a_process_that_is_gone_is_forgotten_in_time(client: Any, name: str, monkeypatch: Any) -> None:
    keys = Keys(name)
    client.flushall()
    client.execute_command(*record_command(keys, "a", b"1"))
    client.zadd(keys.heard, {"old": 1})
    assert [record for _, record in read_records(client, keys).records] == [b"1"], "another's record has expired"
    assert 0 < client.ttl(keys.record("a")) <= module.RECORD_SECONDS
    assert 0 < client.ttl(keys.heard) <= module.RECORD_SECONDS, "nothing stays of an instance that is gone"
    client.execute_command(*record_command(keys, "b", b"2"))
    assert {id for id, _ in client.zrange(keys.heard, 0, -1, withscores=True)} == {b"a", b"b"}


def test_a_beat_carries_the_record_and_removes_what_stands_in_its_way(client: Any, name: str) -> None:
    keys = Keys(name)
    client.flushall()
    client.set(keys.heard, "none of ours")
    beat(client, keys, "worker", "host.1.aa", b"", record=b"1")
    assert [record for _, record in read_records(client, keys).records] == [b"1"]
