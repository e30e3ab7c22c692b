"""The contract of a Channels layer: every test runs in memory, and on each Redis that is promised."""

import asyncio
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import channel_layers

from asgictl.channel_layer.base import MESSAGE_BYTES, ChannelLayer
from asgictl.layers import InMemoryChannelLayer, RedisChannelLayer
from tests.conftest import SERVERS, scenario
from tests.plain import TEXTS, Bytes, Liar, Number, Safe

Make = Callable[..., ChannelLayer]
NOTHING_SECONDS = 0.3  # in which what must not come would have come
HELLO = {"type": "said", "text": "hello"}


@pytest.fixture(params=["memory", *SERVERS])
def make(request: pytest.FixtureRequest, name: str) -> Make:
    """Makes layers that reach each other: in memory that is one."""
    if request.param == "memory":
        made: list[ChannelLayer] = []

        def memory(**options: Any) -> ChannelLayer:
            made.extend([] if made and not options else [InMemoryChannelLayer(**options)])
            return made[-1]

        return memory
    url = request.getfixturevalue(f"url_of_{request.param.partition('-')[0]}")
    return lambda **options: RedisChannelLayer(hosts=[url], prefix=name, **options)


async def nothing(layer: ChannelLayer, channel: str) -> None:
    """Wait for what must not come; the wait is cancelled, which loses nothing."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(layer.receive(channel), NOTHING_SECONDS)


async def numbers(layer: ChannelLayer, channel: str, count: int) -> list[int]:
    return [(await layer.receive(channel))["n"] for _ in range(count)]


@scenario
async def test_a_message_arrives_as_it_was(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    message = {
        "type": "x", "bytes": b"\xff\0", "text": "ü\U0001f600", "int": -(2**63), "float": 0.1, "list": [1, [None]],
        "dict": {"a": {"b": True}}, "big": 2**63 - 1, "": "",
    }  # fmt: skip
    await layer.send(channel, message)
    assert await layer.receive(channel) == message
    await layer.send(channel, {"tuple": (1, 2)})
    assert await layer.receive(channel) == {"tuple": [1, 2]}


@scenario
async def test_names_of_new_channels_are_valid_and_differ(make: Make) -> None:
    layer = make()
    names = {await layer.new_channel() for _ in range(100)} | {await layer.new_channel(prefix="http") for _ in range(9)}
    assert len(names) == 109
    for name in names:
        assert layer.require_valid_channel_name(name)
        assert re.fullmatch(r"(specific|http)\.\w+!\w+", name)


@scenario
async def test_order_is_kept_and_channels_do_not_mix(make: Make) -> None:
    layer, other = make(capacity=200), make()
    one, two = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("g", one)
    for n in range(0, 100, 2):
        await other.send(one, {"n": n})
        await other.send(two, {"n": n})
        await other.group_send("g", {"n": n + 1})
        assert await numbers(layer, one, 2) == [n, n + 1]
    assert await numbers(layer, two, 50) == list(range(0, 100, 2))


@pytest.mark.parametrize("kind", ["local", "shared", "group"])
@scenario
async def test_several_writers_at_once_keep_each_its_order(make: Make, kind: str) -> None:
    """Nothing is received twice, and nothing is missing."""
    layers = [make(capacity=1000), make(), make()]
    for layer in layers:
        layer.capacity = 1000  # a sender's own counts
    channel = "work" if kind == "shared" else await layers[0].new_channel()
    await layers[0].group_add("g", channel)

    async def write(writer: int) -> None:
        for n in range(100):
            message = {"writer": writer, "n": n}
            layer = layers[writer]
            await (layer.group_send("g", message) if kind == "group" else layer.send(channel, message))

    writing = [asyncio.create_task(write(writer)) for writer in range(3)]
    heard: list[list[int]] = [[], [], []]
    for _ in range(300):
        message = await layers[0].receive(channel)
        heard[message["writer"]].append(message["n"])
    assert heard == [list(range(100))] * 3
    await asyncio.gather(*writing)
    await nothing(layers[0], channel)


@pytest.mark.parametrize("is_local", [True, False])
@scenario
async def test_who_joins_hears_all_that_is_sent_afterwards_and_who_leaves_nothing(make: Make, is_local: bool) -> None:
    """By any process, however close: the message of the round before is not heard by its next member."""
    layer, other = make(capacity=1000), make()
    for n in range(50):
        channel = await layer.new_channel() if is_local else f"work{n}"
        await layer.group_add("g", channel)
        await other.group_send("g", {"n": n})
        assert await numbers(layer, channel, 1) == [n]
        await layer.group_discard("g", channel)
        await layer.group_send("g", {"n": -1})
        await layer.send(channel, {"n": n + 1000})
        assert await numbers(layer, channel, 1) == [n + 1000]


@scenario
async def test_names_of_99_characters(make: Make) -> None:
    """Channels' own rules allow that many."""
    layer = make()
    name = "a" * 99
    await layer.group_add(name, name)
    await layer.group_send(name, {"n": 1})
    await layer.send(name, {"n": 2})
    assert await numbers(layer, name, 2) == [1, 2]
    channel = await layer.new_channel("b" * 40)
    await layer.send(channel, {"n": 3})
    assert await numbers(layer, channel, 1) == [3]


@scenario
async def test_every_message_of_a_shared_channel_is_received_once(make: Make) -> None:
    layers = [make(capacity=1000) if n == 0 else make() for n in range(3)]
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def receive(layer: ChannelLayer) -> None:
        while True:
            heard.put_nowait((await layer.receive("work"))["n"])

    tasks = [asyncio.create_task(receive(layer)) for layer in layers for _ in range(2)]
    for n in range(300):
        await layers[0].send("work", {"n": n})
    assert sorted([await heard.get() for _ in range(300)]) == list(range(300))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert heard.empty()


@scenario
async def test_messages_that_wait_in_a_shared_channel_come_in_order(make: Make) -> None:
    layer, other = make(), make()
    for n in range(50):
        await layer.send("work", {"n": n})
    assert await numbers(other, "work", 50) == list(range(50))
    await nothing(layer, "work")


@pytest.mark.parametrize("is_local", [True, False])
@scenario
async def test_a_cancelled_receive_loses_nothing(make: Make, is_local: bool) -> None:
    """Cancelled before a message comes, while it comes, and once it has come."""
    layer, other = make(capacity=1000), make()
    channel = await layer.new_channel() if is_local else "work"
    heard: list[int] = []
    for n in range(200):
        task = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0.001 * (n % 3))
        await other.send(channel, {"n": n})
        await asyncio.sleep(0.0005 * (n % 4))
        task.cancel()
        try:
            heard.append((await task)["n"])
        except asyncio.CancelledError:
            heard.append((await layer.receive(channel))["n"])
    assert sorted(heard) == list(range(200))
    assert not is_local or heard == sorted(heard)


@scenario
async def test_a_receive_that_is_cancelled_leaves_a_shared_message_to_others(make: Make) -> None:
    layer, other = make(), make()
    for _ in range(20):
        task = asyncio.create_task(layer.receive("work"))
        await asyncio.sleep(0)
        await other.send("work", HELLO)
        task.cancel()
        if not (await asyncio.wait([task]))[0].pop().cancelled():
            continue
        assert await other.receive("work") == HELLO


@scenario
async def test_groups(make: Make) -> None:
    layer, other = make(), make()
    one, two, three = [await layer.new_channel() for _ in range(3)]
    await layer.group_send("g", {"n": 0})  # nobody is there, nor hears of it later
    for channel in (one, two, three, one):
        await layer.group_add("g", channel)
    await layer.group_discard("g", two)
    await layer.group_discard("g", two)
    await layer.group_discard("unknown", two)
    await other.group_send("g", {"n": 1})
    await other.group_send("elsewhere", {"n": 2})
    assert await numbers(layer, one, 1) == await numbers(layer, three, 1) == [1]
    for channel in (one, two, three):
        await nothing(layer, channel)


@scenario
async def test_members_may_change_what_they_receive(make: Make) -> None:
    layer = make()
    one, two = await layer.new_channel(), await layer.new_channel()
    for channel in (one, two):
        await layer.group_add("g", channel)
    sent = {"type": "x", "deep": {"list": [1]}}
    await layer.group_send("g", sent)
    heard = await layer.receive(one)
    heard["deep"]["list"].append(2)
    assert await layer.receive(two) == sent == {"type": "x", "deep": {"list": [1]}}


@scenario
async def test_any_channel_can_be_a_member(make: Make) -> None:
    """One of another process, and one that many processes receive from."""
    layer, other = make(capacity=3), make()
    channel = await layer.new_channel()
    await other.group_add("g", channel)
    await layer.group_add("g", channel)
    await layer.group_add("g", "work")
    await other.group_send("g", {"n": 1})
    assert await numbers(layer, channel, 1) == await numbers(other, "work", 1) == [1]
    for n in range(5):
        await other.group_send("g", {"n": n})
    assert await numbers(layer, channel, 3) == await numbers(other, "work", 3) == [0, 1, 2], "a full one goes without"
    await other.group_discard("g", channel)
    await layer.group_discard("g", "work")
    await other.group_send("g", {"n": 9})
    await nothing(layer, channel)
    await nothing(layer, "work")


@pytest.mark.parametrize("is_local", [True, False])
@scenario
async def test_a_full_channel_says_so_until_there_is_room(make: Make, is_local: bool) -> None:
    layer = make(capacity=3)
    channel = await layer.new_channel() if is_local else "work"
    for n in range(3):
        await layer.send(channel, {"n": n})
    with pytest.raises(layer.ChannelFull):
        await layer.send(channel, {"n": 3})
    with pytest.raises(layer.ChannelFull):
        layer.send_sync(channel, {"n": 3})
    if is_local:  # its neighbours have room
        neighbour = await layer.new_channel()
        await layer.send(neighbour, HELLO)
        assert await layer.receive(neighbour) == HELLO
    assert await numbers(layer, channel, 1) == [0]
    await layer.send(channel, {"n": 4})
    assert await numbers(layer, channel, 3) == [1, 2, 4]


@scenario
async def test_capacities_by_pattern(make: Make) -> None:
    layer = make(capacity=3, channel_capacity={"mail.*": 1, re.compile(r"specific\..*"): 2, "mail.slow": 9})
    for channel, capacity in [("mail.slow", 1), ("other", 3), (await layer.new_channel(), 2)]:
        for _ in range(capacity):
            await layer.send(channel, HELLO)
        with pytest.raises(layer.ChannelFull):
            await layer.send(channel, HELLO)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "shared", "group"])
@scenario
async def test_what_nobody_received_in_time_expires_alone(make: Make, kind: str) -> None:
    """Several messages expire, one of them while others wait; those and what comes later are received in order."""
    layer = make(expiry=0.6)
    channel = "work" if kind == "shared" else await layer.new_channel()
    idle = await layer.new_channel()
    for member in (channel, idle) if kind == "group" else ():
        await layer.group_add("g", member)

    async def send(n: int) -> None:
        await (layer.group_send("g", {"n": n}) if kind == "group" else layer.send(channel, {"n": n}))

    for n in range(3):
        await send(n)
    await asyncio.sleep(0.4)
    await send(3)
    await asyncio.sleep(0.3)
    await send(4)
    assert await numbers(layer, channel, 2) == [3, 4]
    await asyncio.sleep(0.7)
    for n in range(5, 10):
        await send(n)
    assert await numbers(layer, channel, 5) == [5, 6, 7, 8, 9]
    if kind == "group":
        assert await numbers(layer, idle, 5) == [5, 6, 7, 8, 9]
    await nothing(layer, channel)
    await nothing(layer, idle)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "shared", "group"])
@scenario
async def test_what_has_expired_leaves_room(make: Make, kind: str) -> None:
    """Also beside a neighbour of the same process that is sent to all the time."""
    layer = make(expiry=1, capacity=3)
    channel = "work" if kind == "shared" else await layer.new_channel()
    neighbour = await layer.new_channel()
    await layer.group_add("g", channel)
    sent: list[int] = []

    async def send() -> None:
        """Send the next number; a member that is full goes without it, and nobody says so."""
        number = sent[-1] + 1 if sent else 0
        await (layer.group_send("g", {"n": number}) if kind == "group" else layer.send(channel, {"n": number}))
        sent.append(number)

    async def send_to_neighbour(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await layer.send(neighbour, HELLO)
            assert await layer.receive(neighbour) == HELLO
            await asyncio.sleep(0.02)

    for _ in range(3):
        await send()
    if kind != "group":
        with pytest.raises(ChannelFull):
            await send()
    # Senders to another process's channel hear of its room within two seconds.
    await send_to_neighbour(3 if kind == "local" and isinstance(layer, RedisChannelLayer) else 1.05)
    for _ in range(3):
        await send()
    assert await numbers(layer, channel, 3) == [3, 4, 5]


@scenario
async def test_a_reader_that_comes_back_after_its_membership_has_ended(make: Make) -> None:
    """What was sent while it was a member waits for it, and it may join again."""
    layer = make(group_expiry=1.5)
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_add("g", member)
    await layer.group_send("g", {"n": 1})
    await asyncio.sleep(1.7)
    await layer.group_send("g", {"n": 2})
    for member in (channel, "work"):
        assert await numbers(layer, member, 1) == [1]
        await nothing(layer, member)
        await layer.group_add("g", member)
    await layer.group_send("g", {"n": 3})
    assert await numbers(layer, channel, 1) == await numbers(layer, "work", 1) == [3]


@scenario
async def test_a_membership_expires_unless_it_is_renewed(make: Make) -> None:
    layer = make(group_expiry=1.5)
    one, two = await layer.new_channel(), await layer.new_channel()
    for channel in (one, two, "work", "more"):
        await layer.group_add("g", channel)
    await asyncio.sleep(0.9)
    for channel in (two, "more"):
        await layer.group_add("g", channel)
    await asyncio.sleep(0.9)
    await layer.group_send("g", HELLO)
    assert await layer.receive(two) == await layer.receive("more") == HELLO
    await nothing(layer, one)
    await nothing(layer, "work")


@scenario
async def test_flush_leaves_nothing(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_add("g", member)
        await layer.send(member, HELLO)
    await layer.group_send("g", HELLO)
    await layer.flush()
    await layer.group_send("g", HELLO)
    await nothing(layer, channel)
    await nothing(layer, "work")
    await layer.group_add("g", channel)
    await layer.group_send("g", HELLO)
    assert await layer.receive(channel) == HELLO


@scenario
async def test_a_megabyte_as_json_passes_and_more_than_the_limit_is_refused(make: Make) -> None:
    layer = make()
    message = {"floats": [1.0] * 250_000}
    await layer.send("work", message)
    assert await layer.receive("work") == message
    for send in (layer.send, layer.group_send):
        with pytest.raises(layer.MessageTooLarge, match="send it in parts"):
            await send("work", {"x": bytes(MESSAGE_BYTES)})


@pytest.mark.parametrize("name", ["", "a b", "a!b!c", "ü", "a" * 100, "a/b", None, b"a", "!a"])
@scenario
async def test_names_that_are_none(make: Make, name: Any) -> None:
    layer = make()
    calls: list[Callable[[], Any]] = [
        lambda: layer.send(name, HELLO),
        lambda: layer.receive(name),
        lambda: layer.group_add("g", name),
        lambda: layer.group_discard("g", name),
        lambda: layer.group_send(name, HELLO),
        lambda: layer.group_add(name, "work"),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="name must be a valid unicode string"):
            await call()


@pytest.mark.parametrize("message", ["text", None, ["x"], {"x": object()}, {"x": 2**64}, {b"k" * 9: 1j}])
@scenario
async def test_messages_that_are_none(make: Make, message: Any) -> None:
    layer = make()
    for send in (layer.send, layer.group_send):
        with pytest.raises(
            TypeError, match=r"a message must be a dict, not|this message cannot be sent: .*; it may hold"
        ):
            await send("work", message)


def test_sync_code_sends_with_and_without_an_event_loop_of_its_own(make: Make) -> None:
    layer = make()
    heard: list[int] = []
    channels: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        channels.append(await layer.new_channel())
        ready.set()
        heard.extend(await numbers(layer, channels[0], 4))

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    assert ready.wait(60)
    layer.group_add_sync("g", channels[0])
    layer.send_sync(channels[0], {"n": 0})
    async_to_sync(layer.send)(channels[0], {"n": 1})
    layer.group_send_sync("g", {"n": 2})
    async_to_sync(layer.group_send)("g", {"n": 3})
    server.join(60)
    assert sorted(heard) == [0, 1, 2, 3]
    layer.group_discard_sync("g", channels[0])


def test_a_channel_outlives_the_loop_that_it_was_made_on(make: Make) -> None:
    layer = make()
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("g", channel)
    async_to_sync(layer.group_send)("g", {"n": 1})
    layer.send_sync(channel, {"n": 2})
    assert {asyncio.run(layer.receive(channel))["n"], async_to_sync(layer.receive)(channel)["n"]} == {1, 2}


def test_channels_finds_it_by_its_name_in_the_settings(make: Make) -> None:
    backend = type(make())
    configs = {"default": {"BACKEND": f"asgictl.layers.{backend.__name__}", "CONFIG": {"capacity": 7}}}
    manager = type("Manager", (type(channel_layers),), {"configs": configs})()
    assert type(manager["default"]) is backend
    assert manager["default"].capacity == 7
    assert set(manager["default"].extensions) == {"groups", "flush"}


@pytest.mark.parametrize("text", TEXTS)
def test_names_and_messages_of_subclasses_are_plain(make: Make, text: str) -> None:
    @scenario
    async def run() -> None:
        layer = make()
        channel = await layer.new_channel()
        await layer.group_add(text, type(text)(channel) if isinstance(text, Safe | Liar) else channel)
        await layer.group_send("hello", {text: text, "number": Number(7), "bytes": Bytes(b"b")})
        found = await layer.receive(channel)
        assert found == {"hello": "hello", "number": 7, "bytes": b"b"}
        assert [type(each) for each in (*found, *found.values())] == [str, str, str, str, int, bytes]
        await layer.send(text, {"n": 1})
        assert await layer.receive("hello") == {"n": 1}
        await layer.send("hello", {"n": 2})
        assert await layer.receive(text) == {"n": 2}
        await layer.group_discard(text, channel)
        await layer.group_send("hello", {"n": 3})
        await nothing(layer, channel)

    run()
