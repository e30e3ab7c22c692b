"""How a channel layer speaks to Redis: what only its own tests can bring about."""

import asyncio
from typing import Any

import pytest

from asgictl.channel_layer.links import Order, OrderSender
from asgictl.errors import RedisError
from asgictl.layers.redis.link import Link
from tests.conftest import scenario, until


def direct(stream: str, payload: bytes) -> Order:
    return Order("direct", stream, "", 60_000, 0, "f", payload)


async def made(url: str, restored: list[Link]) -> OrderSender:
    sender = OrderSender(url, "last:", restored.append, lambda: None)
    await sender.start()
    return sender


@scenario
async def test_orders_leave_in_turn_whatever_becomes_of_the_link(url: str, client: Any, name: str) -> None:
    restored: list[Link] = []
    sender = await made(url, restored)
    early = [asyncio.create_task(sender.send(direct(name, b"%d" % n))) for n in range(3)]  # before there is a link
    await sender.link.be_started()
    for n in range(3, 200):
        sender.post(direct(name, b"%d" % n))
        if n % 40 == 0:
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.001 * (n % 3))
    assert await sender.send(direct(name, b"200")) == 1
    assert await asyncio.gather(*early) == [1, 1, 1]
    assert [int(fields[b"f"]) for _, fields in client.xrange(name)] == list(range(201))
    assert len(restored) > 1


@scenario
async def test_what_a_replica_did_not_take_it_takes_as_master(url: str, client: Any, name: str) -> None:
    restored: list[Link] = []
    sender = await made(url, restored)
    await sender.link.be_started()
    client.config_resetstat()
    client.replicaof("127.0.0.1", 1)
    orders = [asyncio.create_task(sender.send(direct(name, b"%d" % n))) for n in range(3)]
    await asyncio.to_thread(until, lambda: client.info("errorstats"), "it refuses them")
    client.replicaof("NO", "ONE")
    assert await asyncio.gather(*orders) == [1, 1, 1]
    assert [int(fields[b"f"]) for _, fields in client.xrange(name)] == [0, 1, 2]


@scenario
async def test_an_order_that_came_twice_is_done_once(url: str, client: Any, name: str) -> None:
    for _ in range(2):
        client.execute_command(*direct(name, b"x").command(f"{name}:last", 7))
    assert client.execute_command(*direct(name, b"x").command(f"{name}:last", 6)) == 1
    assert client.xlen(name) == 1


@scenario
async def test_what_redis_refuses_is_raised(url: str, client: Any, name: str) -> None:
    client.set(name, "x")
    sender = await made(url, [])
    await sender.link.be_started()
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await sender.send(direct(name, b"x"))
