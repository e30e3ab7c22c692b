"""How a channel layer speaks to Redis: what only its own tests can bring about."""

import asyncio
from typing import Any

import pytest

from asgictl.channel_layer.links import Order, OrderSender, PositionReader
from asgictl.errors import RedisError
from asgictl.layers.redis.link import Link
from tests.conftest import scenario, until


def letter(stream: str, payload: bytes) -> Order:
    return Order("letter", stream, "", 60_000, 0, "f", payload)


async def made(url: str, restored: list[Link]) -> OrderSender:
    sender = OrderSender(url, "last:", restored.append, lambda: None)
    await sender.start()
    return sender


@scenario
async def test_orders_leave_in_turn_whatever_becomes_of_the_link(url: str, client: Any, name: str) -> None:
    restored: list[Link] = []
    sender = await made(url, restored)
    early = [asyncio.create_task(sender.send(letter(name, b"%d" % n))) for n in range(3)]  # before there is a link
    await sender.link.be_started()
    for n in range(3, 200):
        sender.post(letter(name, b"%d" % n))
        if n % 40 == 0:
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.001 * (n % 3))
    assert await sender.send(letter(name, b"200")) == 1
    assert await asyncio.gather(*early) == [1, 1, 1]
    assert [int(fields[b"f"]) for _, fields in client.xrange(name)] == list(range(201))
    assert len(restored) > 1


@scenario
async def test_what_a_replica_did_not_take_it_takes_as_master(url: str, client: Any, name: str) -> None:
    restored: list[Link] = []
    sender = await made(url, restored)
    await sender.link.be_started()
    client.replicaof("127.0.0.1", 1)
    orders = [asyncio.create_task(sender.send(letter(name, b"%d" % n))) for n in range(3)]
    await asyncio.to_thread(until, lambda: len(restored) > 1, "it has connected anew")
    client.replicaof("NO", "ONE")
    assert await asyncio.gather(*orders) == [1, 1, 1]
    assert [int(fields[b"f"]) for _, fields in client.xrange(name)] == [0, 1, 2]


@scenario
async def test_an_order_that_came_twice_is_done_once(url: str, client: Any, name: str) -> None:
    for _ in range(2):
        client.execute_command(*letter(name, b"x").command(f"{name}:last", 7))
    assert client.execute_command(*letter(name, b"x").command(f"{name}:last", 6)) == 1
    assert client.xlen(name) == 1


@scenario
async def test_what_redis_refuses_is_raised(url: str, client: Any, name: str) -> None:
    client.set(name, "x")
    sender = await made(url, [])
    await sender.link.be_started()
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await sender.send(letter(name, b"x"))


@scenario
async def test_a_reader_passes_over_what_its_owner_cannot_take(
    url: str, client: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def hear(_stream: str, _entry: bytes, _field: bytes, value: bytes) -> None:
        heard.put_nowait(value)
        if value == b"bad":
            raise ValueError(value)

    reader = PositionReader(url, {f"{name}:in": b"0", f"{name}:all": b""}, hear, lambda: None)
    client.xadd(f"{name}:all", {"m": "before"})
    client.xadd(f"{name}:in", {"m": "1"})
    await reader.link.be_started()
    client.xadd(f"{name}:all", {"m": "bad"})
    client.xadd(f"{name}:all", {"m": "2"})
    assert [await heard.get() for _ in range(3)] == [b"1", b"bad", b"2"]
    assert "was passed over" in caplog.text
    await asyncio.to_thread(until, lambda: not client.xlen(f"{name}:in"), "what was read is gone")
    await reader.link.stop()


@scenario
async def test_a_redis_that_has_lost_its_newest_does_not_repeat_the_others(url: str, client: Any, name: str) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    positions = {f"{name}:in": b"0", f"{name}:all": b"9999999999999-0"}
    client.xadd(f"{name}:all", {"m": "read long ago"}, id="5-0")
    reader = PositionReader(
        url, positions, lambda _stream, _entry, _field, value: heard.put_nowait(value), lambda: None
    )
    await reader.link.be_started()
    client.xadd(f"{name}:all", {"m": "new"}, id="6-0")
    assert await heard.get() == b"new"
    await reader.link.stop()
