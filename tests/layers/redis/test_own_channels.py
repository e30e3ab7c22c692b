"""Workers' own channels, on a real server: who creates, closes and removes them."""

import asyncio
from typing import Any

import pytest
import redis

from asgictl.layers.base import own_channel
from asgictl.layers.redis import own_channels
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat, beat_command, member, reap, release_command
from asgictl.layers.redis.own_channels import OwnChannels
from asgictl.layers.redis.worker_side import RedisWorkerLayer
from asgictl.wire.messages import Died, Lost, Request
from tests.conftest import scenario
from tests.layers.conftest import Interface, committed, read_some, request, response, serving

A, B = "host.7.aa", "host.7.aab"  # workers; neither may pass for the other
HOME = f"{A}.asgi"
OWN = own_channel("http.request", HOME)


def live(client: Any, keys: Keys, worker: str = A) -> bytes:
    """Beat for a worker that takes events of its own; return the epoch."""
    channel = own_channel("http.request", f"{worker}.asgi")
    return beat(client, keys, "worker", worker, b"", channels=["http.request", channel]).epoch


async def appended(interface: Interface, event: Request, channel: str = OWN) -> object:
    """Add an event to a worker's own channel; return the answer."""
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    interface.layer.append(channel, event, answer.set_result, repeatable=True, is_own=True)
    return await answer


async def known(interface: Interface) -> tuple[str, ...]:
    found = asyncio.Event()
    interface.layer.find_homes(found.set)
    await found.wait()
    return interface.layer.homes("http.request")


def own_layer(url: str, name: str, worker: str = A) -> RedisWorkerLayer:
    layer = RedisWorkerLayer(url, name, f"{worker}.own", [own_channel("http.request", f"{worker}.asgi")], is_own=True)
    layer.connect()
    return layer


def test_an_own_channel_is_created_by_a_beat_and_read_by_its_worker_alone(url: str, client: Any, name: str) -> None:
    keys, layer = Keys(name), own_layer(url, name)

    @scenario
    async def test() -> None:
        async with serving(url, name) as interface:
            assert await appended(interface, request()) is None
            assert await asyncio.to_thread(layer.read, 1) == [], "there is none yet, which is no fault"
            live(client, keys)
            live(client, keys, B)
            assert set(await known(interface)) == {HOME, f"{B}.asgi"}
            assert isinstance(await appended(interface, request()), bytes)
            (entry,) = await asyncio.to_thread(read_some, layer)
            assert entry.stream.decode() == keys.channel(OWN)
            await committed(layer, entry, response())
            assert await interface.replies.get() == (response(), None)
            assert client.xlen(keys.channel(OWN)) == 0
            assert client.smembers(keys.channels) == {keys.channel("http.request").encode()}

    test()
    layer.close()


def test_a_closed_channel_refuses_events_keeps_what_is_in_hand_and_gives_back_the_rest(
    url: str, client: Any, name: str
) -> None:
    keys, layer = Keys(name), own_layer(url, name)
    live(client, keys)

    @scenario
    async def test() -> None:
        async with serving(url, name) as interface:
            for number in (1, 2, 3):
                assert isinstance(await appended(interface, request(f"host.1.aa/{number}")), bytes)
            client.xadd(keys.channel(OWN), {"1": "junk"})
            (held,) = await asyncio.to_thread(layer.read, 1)
            for _ in range(2):  # it may be tried again
                own_channels.close(client, keys, [OWN], f"{A}.own")
            lost = {(await interface.replies.get())[0] for _ in range(2)}
            assert lost == {Lost(f"host.1.aa/{number}", 0, 1, started=False) for number in (2, 3)}
            assert isinstance(await appended(interface, request("host.1.aa/4")), Exception)
            assert await known(interface) == ()
            await committed(layer, held, response())
            assert await interface.replies.get() == (response(), None)

    test()
    layer.close()


def test_what_was_never_created_is_closed(client: Any, name: str) -> None:
    own_channels.close(client, Keys(name), [OWN], "w")
    assert not client.exists(Keys(name).channel(OWN))


def test_a_channel_that_cannot_be_closed_is_not_taken_for_closed(client: Any, name: str) -> None:
    client.set(Keys(name).channel(OWN), "x")
    with pytest.raises(redis.ResponseError):
        own_channels.close(client, Keys(name), [OWN], "w")


def test_a_dead_workers_own_channels_go_and_what_they_hold_is_lost(url: str, client: Any, name: str) -> None:
    """What it had taken may have started; what nobody had taken has not."""
    keys, layer = Keys(name), own_layer(url, name)
    live(client, keys)
    live(client, keys, B)

    @scenario
    async def test() -> None:
        async with serving(url, name) as interface:
            for number in (1, 2):
                await appended(interface, request(f"host.1.aa/{number}"))
            await asyncio.to_thread(layer.read, 1)
            assert reap(client, keys, member("worker", A), seen=True) == 2
            lost = {(await interface.replies.get())[0] for _ in range(3)}
            assert lost == {Lost("host.1.aa/1", 0, 1, True), Lost("host.1.aa/2", 0, 1, False), Died(A)}
            assert await appended(interface, request()) is None
            assert await known(interface) == (f"{B}.asgi",)
            assert not client.exists(keys.channel(OWN))

    test()
    layer.close()


def test_an_event_that_is_given_back_is_lost_and_has_not_started(url: str, client: Any, name: str) -> None:
    keys, layer = Keys(name), own_layer(url, name)
    live(client, keys)

    @scenario
    async def test() -> None:
        async with serving(url, name) as interface:
            await appended(interface, request())
            (entry,) = await asyncio.to_thread(layer.read, 1)
            client.execute_command(*release_command(keys, [entry]))
            assert (await interface.replies.get())[0] == Lost("host.1.aa/1", 0, 1, False)

    test()
    layer.close()


def test_the_depth_of_a_channel_counts_own_channels_beside_it(url: str, client: Any, name: str) -> None:
    live(client, Keys(name))

    @scenario
    async def test() -> None:
        async with serving(url, name) as interface:
            await appended(interface, request())
            await interface.append(request("host.1.aa/2"))
            for channel, depth in (("http.request", 2), ("websocket.connect", 0)):
                answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                interface.layer.depth(channel, answer.set_result)
                assert await answer == depth

    test()


def test_a_beat_forgets_own_channels_of_who_is_not_there_and_what_is_none(client: Any, name: str) -> None:
    keys = Keys(name)
    live(client, keys)
    client.zadd(keys.own, {keys.channel(own_channel("http.request", f"{B}.asgi")): 1, "x": 1})
    removed: list[str] = []
    beat(client, keys, "interface", "host.1.aa", b"", reject=removed.append)
    assert client.zrange(keys.own, 0, -1) == [keys.channel(OWN).encode()]
    assert len(removed) == 1


def test_a_fenced_worker_creates_none(client: Any, name: str) -> None:
    keys = Keys(name)
    epoch = live(client, keys)
    reap(client, keys, member("worker", A), seen=True)
    assert client.execute_command(*beat_command(keys, "worker", A, epoch, [OWN]))[1] == 1
    assert not client.exists(keys.channel(OWN))


def test_an_answer_that_is_none_changes_nothing() -> None:
    keys = Keys("x")
    own = OwnChannels(keys)
    own.take([keys.channel(OWN).encode(), b"1", keys.channel("http.request@closed").encode(), b"0", b"\xff", b"1"])
    own.take(ConnectionError())
    assert own.homes("http.request") == (HOME,)
    assert own.depth_command("http.request")[2] == 3
    assert own.depth_command("http.request.slow")[0] == "XLEN"
