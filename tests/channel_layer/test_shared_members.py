"""Groups in which are channels that many processes receive from: a sender first has to learn of them."""

import asyncio
from typing import Any

import pytest

from asgictl.channel_layer import redis as channel_layer
from asgictl.channel_layer.links import Order
from asgictl.layers import RedisChannelLayer
from tests.channel_layer.test_redis import cutting
from tests.conftest import scenario

MESSAGES = 2_000


@pytest.mark.slow
@scenario
async def test_cut_connections_lose_and_repeat_nothing_of_what_a_group_sends_to_shared_channels(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what the sender knows of them is forgotten, as where there are too many."""
    monkeypatch.setattr(channel_layer, "SHARED_MEMBERS", 3)
    receiver, sender = (RedisChannelLayer([url], name, capacity=MESSAGES) for _ in range(2))
    for channel in ("one", "two"):
        await receiver.group_add("g", channel)

    async def receive(channel: str) -> list[int]:
        return sorted([(await receiver.receive(channel))["n"] for _ in range(MESSAGES)])

    receivers = [asyncio.create_task(receive(channel)) for channel in ("one", "two")]
    async with cutting(client):
        for first in range(0, MESSAGES, 20):
            await asyncio.gather(*(sender.group_send("g", {"n": n}) for n in range(first, first + 20)))
            if first % 200 == 0:
                sender._shared_members.clear()
    assert await asyncio.gather(*receivers) == [list(range(MESSAGES))] * 2
    assert len(sender._shared_members["g"]) == 2


@scenario
async def test_a_group_has_as_many_shared_channels_as_it_likes(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_layer, "SHARED_MEMBERS", 3)
    layer = RedisChannelLayer([url], name)
    for group in ("a", "b"):
        for number in range(5):
            await layer.group_add(group, f"{group}{number}")
    for n in range(3):
        for group in ("a", "b"):
            await layer.group_send(group, {"n": n})
    heard = [
        [(await layer.receive(f"{group}{number}"))["n"] for _ in range(3)] for group in "ab" for number in range(5)
    ]
    assert heard == [[0, 1, 2]] * 10
    assert sum(map(len, layer._shared_members.values())) == 3


def test_what_was_not_declared_is_told_again_and_nothing_is_done_again(url: str, client: Any, name: str) -> None:
    order = Order("group", f"{name}:groups", f"{name}:members", 60_000, 0, "g", b"x")
    client.hset(order.beside, "undeclared", f"100 {1 << 50} channel")
    declared = f"{name}:shared"
    client.hset(order.beside, declared, f"100 {1 << 50} other")
    command = order._replace(more=(declared,)).command(f"{name}:last", 7)
    others = [[b"undeclared", 100, b"channel"]]
    assert [client.execute_command(*command)[1] for _ in range(2)] == [others, others]
    assert (client.xlen(order.stream), client.xlen(declared), client.exists("undeclared")) == (2, 1, 0)
