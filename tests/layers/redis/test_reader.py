"""What follows streams, on a real server."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from asgictl.layers.redis.link import Link
from asgictl.layers.redis.reader import LAST_ID, PASSED_OVER, READ_COUNT, Followed, Reader
from tests.conftest import scenario, until


class Reading:
    """A reader of `ours`, which nobody else reads, and then of `all`. heard: key's last word, value."""

    def __init__(self, url: str, name: str, position: bytes = b"") -> None:
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.rejected: list[str] = []
        self.followed = [
            Followed(f"{name}:ours", partial(self._hear, "ours"), trim_bytes=0),
            Followed(f"{name}:all", partial(self._hear, "all"), position),
        ]
        self.reader = Reader(partial(Link, url), self.followed, reject=self.rejected.append)

    def _hear(self, stream: str, _entry: bytes, fields: list[bytes]) -> None:
        self.heard.put_nowait((stream, fields[1]))
        if fields[1] == b"bad":
            raise ValueError(fields[1])

    async def hears(self, *expected: tuple[str, bytes]) -> None:
        assert [await self.heard.get() for _ in expected] == list(expected)


@scenario
async def test_it_passes_over_what_its_owner_cannot_take(
    url: str, client: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Reading(url, name)
    client.xadd(f"{name}:all", {"m": "before"})
    client.xadd(f"{name}:ours", {"m": "1"})
    await reading.reader.link.start()
    client.xadd(f"{name}:all", {"m": "bad"})
    client.xadd(f"{name}:all", {"m": "bad"})
    client.xadd(f"{name}:all", {"m": "2"})
    await reading.hears(("ours", b"1"), ("all", b"bad"), ("all", b"bad"), ("all", b"2"))
    assert caplog.text.count("skipped entry") == 1
    assert reading.rejected == [PASSED_OVER] * 2
    client.xadd(f"{name}:ours", {"m": "2"})
    await reading.hears(("ours", b"2"))
    await asyncio.to_thread(until, lambda: client.xlen(f"{name}:ours") == 1, "what was read is gone but for the last")
    await reading.reader.link.stop()


@scenario
async def test_a_redis_that_has_lost_its_newest_does_not_repeat_the_others(url: str, client: Any, name: str) -> None:
    """Whether it was there at first, or came later with a slower clock."""
    reading = Reading(url, name, b"9999999999999-0")
    client.xadd(f"{name}:all", {"m": "read long ago"}, id="5-0")
    await reading.reader.link.start()
    client.xadd(f"{name}:all", {"m": "new"}, id="6-0")
    await reading.hears(("all", b"new"))
    client.delete(f"{name}:all", f"{name}:ours")
    client.client_kill_filter(_type="normal", skipme=True)
    client.xadd(f"{name}:all", {"m": "lost long ago"}, id="4-0")
    await asyncio.to_thread(until, lambda: reading.followed[1].position == b"4-0", "it has connected anew")
    client.xadd(f"{name}:ours", {"m": "newer"}, id="1-0")
    client.xadd(f"{name}:all", {"m": "newer"}, id="4-1")
    assert {await reading.heard.get() for _ in range(2)} == {("ours", b"newer"), ("all", b"newer")}
    await reading.reader.link.stop()


@scenario
@pytest.mark.parametrize("clock", ["slower", "the same"])
async def test_a_new_master_that_has_lost_the_newest_of_a_stream_of_ours_leaves_out_nothing_of_it(
    url: str, client: Any, name: str, clock: str
) -> None:
    """Its ids may be smaller than those that were read, or the same for something else."""
    reading, lost, after = Reading(url, name), "9-0", "8-0" if clock == "slower" else "9-0"
    client.xadd(f"{name}:ours", {"m": "kept"}, id="1-0")
    await reading.reader.link.start()
    client.xadd(f"{name}:ours", {"m": "lost"}, id=lost)
    await reading.hears(("ours", b"kept"), ("ours", b"lost"))
    with client.pipeline() as failover:
        failover.client_kill_filter(_type="normal", skipme=True)
        failover.delete(f"{name}:ours")
        failover.xadd(f"{name}:ours", {"m": "new"}, id=after)
        failover.xadd(f"{name}:ours", {"m": "newer"}, id="10-0")
        failover.execute()
    heard = [await reading.heard.get()]
    while heard[-1] != ("ours", b"newer"):
        heard.append(await reading.heard.get())
    assert ("ours", b"new") in heard
    await reading.reader.link.stop()


@scenario
async def test_a_cut_repeats_nothing_of_a_stream_of_ours(url: str, client: Any, name: str) -> None:
    reading = Reading(url, name)
    await reading.reader.link.start()
    for number in range(3):
        client.xadd(f"{name}:ours", {"m": str(number)})
        await reading.hears(("ours", b"%d" % number))
        client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.to_thread(until, lambda: reading.reader.link.up, "it is back")
    await reading.reader.link.stop()


@scenario
async def test_a_later_stream_waits_until_the_earlier_are_read_to_their_ends(url: str, client: Any, name: str) -> None:
    reading = Reading(url, name, b"0")
    for number in range(2 * READ_COUNT):
        client.xadd(f"{name}:ours", {"m": str(number)})
    client.xadd(f"{name}:all", {"m": "last"})
    await reading.reader.link.start()
    await reading.hears(*(("ours", b"%d" % number) for number in range(2 * READ_COUNT)), ("all", b"last"))
    await reading.reader.link.stop()


@scenario
@pytest.mark.parametrize("make", [lambda client, key: client.set(key, "x"), lambda client, key: client.sadd(key, "x")])
async def test_what_stands_where_its_stream_should_is_removed(
    make: Callable[[Any, str], None], url: str, client: Any, name: str
) -> None:
    make(client, f"{name}:ours")
    make(client, f"{name}:all")
    reading = Reading(url, name)
    await reading.reader.link.start()
    client.xadd(f"{name}:ours", {"m": "1"})
    client.xadd(f"{name}:all", {"m": "2"})
    assert {await reading.heard.get() for _ in range(2)} == {("ours", b"1"), ("all", b"2")}
    client.delete(f"{name}:all")
    make(client, f"{name}:all")
    await asyncio.to_thread(until, lambda: client.type(f"{name}:all") != b"string", "it is removed while it reads, too")
    await reading.reader.link.stop()


@scenario
@pytest.mark.parametrize("value", ["abc", "1180591620717411303424", "1_0-5", "-1"])
async def test_a_newest_of_what_was_trimmed_that_is_no_id_counts_as_none(
    url: str, client: Any, name: str, value: str
) -> None:
    """At the start, and while it reads."""
    reading = Reading(url, name)
    reading.followed[1].trimmed = f"{name}:trimmed"
    client.set(f"{name}:trimmed", value)
    await reading.reader.link.start()
    await asyncio.sleep(1.2)  # a read without entries
    client.xadd(f"{name}:all", {"m": "1"})
    await reading.hears(("all", b"1"))
    client.delete(f"{name}:trimmed")
    client.lpush(f"{name}:trimmed", value)
    client.client_kill_filter(_type="normal", skipme=True)
    client.xadd(f"{name}:all", {"m": "2"})
    await reading.hears(("all", b"2"))
    await reading.reader.link.stop()


@scenario
async def test_a_stream_of_ours_whose_ids_are_used_up_is_made_anew(url: str, client: Any, name: str) -> None:
    reading = Reading(url, name)
    await reading.reader.link.start()
    client.xadd(f"{name}:ours", {"m": "last"}, id=LAST_ID)
    await reading.hears(("ours", b"last"))
    await asyncio.to_thread(until, lambda: not client.xlen(f"{name}:ours"), "it is empty")
    client.xadd(f"{name}:ours", {"m": "first"}, nomkstream=True)
    await reading.hears(("ours", b"first"))
    await reading.reader.link.stop()
