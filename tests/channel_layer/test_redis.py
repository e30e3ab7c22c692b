"""What a Channels layer on Redis does when Redis does not do as it should, and on several event loops."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from channels.exceptions import ChannelFull, InvalidChannelLayerError

from asgictl.channel_layer.redis import url_of
from asgictl.errors import RedisError
from asgictl.layers import RedisChannelLayer
from asgictl.machine.run_dir import DESCRIPTION, RunDir
from tests.conftest import redis_server, scenario, until

MESSAGES = 10_000
CUTS = 50


def cut(client: Any) -> int:
    """Cut every connection but this one."""
    killed: int = client.client_kill_filter(_type="normal", skipme=True)
    return killed


@asynccontextmanager
async def cutting(client: Any) -> AsyncIterator[None]:
    """Cut all connections as often as is promised, while something happens that goes on until then."""

    async def cuts() -> None:
        for _ in range(CUTS):
            cut(client)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(cuts())
    try:
        yield
    finally:
        await task


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["group", "local", "shared"])
@scenario
async def test_cut_connections_lose_and_repeat_nothing(url: str, client: Any, name: str, kind: str) -> None:
    layer = RedisChannelLayer([url], name, capacity=MESSAGES)
    other = RedisChannelLayer([url], name, capacity=MESSAGES)
    channels = ["work"] if kind == "shared" else [await layer.new_channel() for _ in range(5 if kind == "group" else 1)]
    heard: dict[str, list[int]] = {channel: [] for channel in channels}

    async def receive(channel: str) -> None:
        while len(heard[channel]) < MESSAGES:
            heard[channel].append((await layer.receive(channel))["n"])

    for channel in channels if kind == "group" else ():
        await layer.group_add("g", channel)
    receivers = [asyncio.create_task(receive(channel)) for channel in channels]
    async with cutting(client):
        for first in range(0, MESSAGES, 20):
            batch = range(first, first + 20)
            await asyncio.gather(
                *(
                    other.group_send("g", {"n": n}) if kind == "group" else other.send(channels[0], {"n": n})
                    for n in batch
                )
            )
    await asyncio.gather(*receivers)
    if kind == "shared":  # what a cut made too much was given back, behind others
        heard["work"].sort()
    assert list(heard.values()) == [list(range(MESSAGES))] * len(channels)


@scenario
async def test_room_is_told_of_again_after_a_cut(url: str, client: Any, name: str) -> None:
    layer = RedisChannelLayer([url], name, capacity=2)
    channel = await layer.new_channel()
    for n in range(100):
        await layer.send(channel, {"n": n})
        if n % 10 == 0:
            cut(client)
        assert (await layer.receive(channel))["n"] == n


def test_sync_code_sends_once_over_cut_connections(url: str, client: Any, name: str) -> None:
    layer = RedisChannelLayer([url], name)
    for n in range(20):
        layer.send_sync("work", {"n": n})
        cut(client)

    async def received() -> list[int]:
        return [(await layer.receive("work"))["n"] for _ in range(20)]

    assert asyncio.run(received()) == list(range(20))


@pytest.mark.slow
def test_a_restarted_redis_is_found_again(name: str, tmp_path: Path) -> None:
    """Members are known to their processes, so they hear of what is sent after it; nobody has to join again."""
    sockets = tmp_path / "s"

    async def main() -> None:
        layer, other = RedisChannelLayer([f"unix://{sockets}"], name), RedisChannelLayer([f"unix://{sockets}"], name)
        with pytest.raises(RedisError, match=r"is it running\?"):
            await layer.new_channel()
        for n in range(3):
            with redis_server("valkey-8") as url:
                sockets.unlink(missing_ok=True)
                sockets.symlink_to(url.removeprefix("unix://"))
                if n == 0:
                    channel = await layer.new_channel()
                    await layer.group_add("g", channel)
                    waiting = asyncio.create_task(layer.receive("work"))
                await other.group_send("g", {"n": n})
                assert (await layer.receive(channel))["n"] == n
                await other.send(channel, {"n": n})
                assert (await layer.receive(channel))["n"] == n
                if n == 2:
                    await other.send("work", {"n": n})
                    assert (await waiting)["n"] == n
        with pytest.raises(RedisError, match="has not answered"):
            await other.group_send("g", {"n": 9})

    asyncio.run(asyncio.wait_for(main(), 120))


@scenario
async def test_a_redis_that_forgets_a_waiting_receiver_is_asked_again(url: str, client: Any, name: str) -> None:
    """FLUSHALL between a message and its being told of: nothing else would ever look for it."""
    layer, other = RedisChannelLayer([url], name), RedisChannelLayer([url], name)
    waiting = asyncio.create_task(layer.receive("work"))
    await layer.new_channel()
    await other.send("unrelated", {"n": 0})
    client.xadd(f"asgictl:{{{name}}}:layer:ch:work", {"m": b"\x81\xa1n\x01"})
    assert await waiting == {"n": 1}


@scenario
async def test_processes_that_are_gone_leave_nothing_for_long(url: str, client: Any, name: str) -> None:
    layer, other = RedisChannelLayer([url], name, expiry=0.5), RedisChannelLayer([url], name, expiry=0.5)
    gone = f"specific.{'0' * 32}!0"
    await other.group_add("g", gone)
    await other.group_add("g", await layer.new_channel())
    for n in range(3):
        await other.send(gone, {"n": n})
        await other.send("work", {"n": n})
        await other.group_send("g", {"n": n})
    await asyncio.sleep(0.6)
    left = [key for key in client.scan_iter(f"asgictl:{{{name}}}:*") if b":last:" not in key]
    assert left == []
    assert all(client.pttl(key) > 0 for key in client.scan_iter(f"asgictl:{{{name}}}:*"))


@scenario
async def test_what_is_told_after_a_cut_does_not_stay(url: str, client: Any, name: str) -> None:
    """A process that then dies leaves nothing."""
    layer = RedisChannelLayer([url], name, expiry=5)
    channel = await layer.new_channel()
    for n in range(2):
        await layer.send(channel, {"n": n})
    await asyncio.to_thread(until, lambda: layer._mailboxes.counted_in(channel) == 2, "they have come")
    held = f"asgictl:{{{name}}}:layer:held:{layer._client}"
    client.delete(held)
    cut(client)
    await asyncio.to_thread(until, lambda: client.hgetall(held) == {channel.encode(): b"2"}, "it is told again")
    assert 0 < client.pttl(held) <= 5000


@pytest.mark.slow
@scenario
async def test_what_expires_on_its_way_to_a_process_that_stands_still_leaves_room(url: str, name: str) -> None:
    """Its channel was full, and nothing of it was ever received, while a neighbour is sent to all the time."""
    layer, other = (RedisChannelLayer([url], name, expiry=0.8, channel_capacity={"small.*": 2}) for _ in range(2))
    channel, neighbour = await layer.new_channel("small"), await layer.new_channel()

    def stand_still() -> None:
        for n in range(2):
            other.send_sync(channel, {"n": n})
        with pytest.raises(ChannelFull):
            other.send_sync(channel, {"n": 2})
        for _ in range(20):
            time.sleep(0.05)
            other.send_sync(neighbour, {"n": 0})

    stand_still()
    for _ in range(30):
        await asyncio.sleep(0.1)
        await other.send(neighbour, {"n": 1})
        await layer.receive(neighbour)
    await other.send(channel, {"n": 3})
    assert await layer.receive(channel) == {"n": 3}


@scenario
async def test_joining_and_leaving_write_nothing(url: str, client: Any, name: str) -> None:
    layer = RedisChannelLayer([url], name)
    channels = [await layer.new_channel() for _ in range(100)]
    keys, calls = client.dbsize(), client.info("commandstats")
    for channel in channels:
        await layer.group_add("g", channel)
        await layer.group_discard("g", channel)
    after = client.info("commandstats")
    writing = {"cmdstat_eval", "cmdstat_xadd", "cmdstat_hset", "cmdstat_hdel", "cmdstat_set", "cmdstat_zadd"}
    assert {each: after.get(each) for each in writing} == {each: calls.get(each) for each in writing}
    assert client.dbsize() == keys


def test_the_reader_moves_to_another_loop_when_its_own_ends(url: str, name: str) -> None:
    layer = RedisChannelLayer([url], name)
    channels: list[str] = []
    heard: list[dict[str, Any]] = []
    first_ends, second_waits = threading.Event(), threading.Event()

    async def first() -> None:
        channels.append(await layer.new_channel())
        await asyncio.to_thread(second_waits.wait, 60)

    async def second() -> None:
        waiting = asyncio.create_task(layer.receive(channels[0]))
        await asyncio.to_thread(until, lambda: layer._mailboxes[channels[0]].waiters, "it waits")
        second_waits.set()
        heard.append(await waiting)

    def run_first() -> None:
        asyncio.run(first())
        first_ends.set()

    threads = [threading.Thread(target=run_first), threading.Thread(target=lambda: asyncio.run(second()))]
    threads[0].start()
    until(lambda: channels, "there is a channel")
    threads[1].start()
    assert first_ends.wait(60)
    layer.send_sync(channels[0], {"n": 1})
    for thread in threads:
        thread.join(60)
    assert heard == [{"n": 1}]


def test_no_connection_is_left_behind_by_loops_that_end(url: str, client: Any, name: str) -> None:
    layer = RedisChannelLayer([url], name)

    async def use() -> None:
        await layer.send(await layer.new_channel(), {"n": 1})

    layer.send_sync("work", {"n": 1})
    before = len(client.client_list())
    for _ in range(5):
        asyncio.run(use())
    until(lambda: len(client.client_list()) == before, "all are closed")


@pytest.mark.slow
def test_a_process_that_does_not_read_for_longer_than_expiry_stays_a_member(url: str, name: str) -> None:
    """A15, in two processes: its loop stands still, and so does whoever reads for it; five come afterwards."""
    code = (
        "import asyncio, sys, time\nfrom asgictl.layers import RedisChannelLayer\n"
        "async def main():\n"
        f"    layer = RedisChannelLayer([{url!r}], {name!r}, expiry=0.5)\n"
        "    channel = await layer.new_channel()\n"
        "    await layer.group_add('g', channel)\n"
        "    print(channel, flush=True)\n"
        "    while (message := await layer.receive(channel))['n']:\n"
        "        print(message['n'], flush=True)\n"
        "        if message['n'] == 1:\n"
        "            await asyncio.sleep(1)\n"
        "            time.sleep(1)\n"
        "            print('back', flush=True)\n"
        "asyncio.run(main())\n"
    )
    layer = RedisChannelLayer([url], name, expiry=0.5)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for n in range(1, 4):  # two of them expire unread
            layer.group_send_sync("g", {"n": n})
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "back\n"]
        for n in (4, 5, 6, 7, 8, 0):
            layer.group_send_sync("g", {"n": n})
        assert process.stdout.read().split() == ["4", "5", "6", "7", "8"]
        assert process.wait(60) == 0


def test_two_processes(url: str, name: str) -> None:
    code = (
        "import asyncio, sys\nfrom asgictl.layers import RedisChannelLayer\n"
        "async def main():\n"
        f"    layer = RedisChannelLayer([{url!r}], {name!r})\n"
        "    channel = await layer.new_channel()\n"
        "    await layer.group_add('g', channel)\n"
        "    print(channel, flush=True)\n"
        "    while (message := await layer.receive(channel))['n']:\n"
        "        await layer.send(message['to'], {'n': -message['n']})\n"
        "asyncio.run(main())\n"
    )

    async def main(channel: str) -> None:
        layer = RedisChannelLayer([url], name)
        ours = await layer.new_channel()
        for n in range(1, 100):
            await layer.send(channel, {"n": n, "to": ours})
            assert await layer.receive(ours) == {"n": -n}
        await layer.group_send("g", {"n": 0})
        with pytest.raises(ValueError, match="belongs to another process"):
            await layer.receive(channel)

    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        asyncio.run(main(process.stdout.readline().strip()))
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (["redis://h:1/2"], "redis://h:1/2"),
        ([("h", 1)], "redis://h:1"),
        ([{"address": "unix:///s"}], "unix:///s"),
        (None, "redis://localhost:6379"),
    ],
)
def test_hosts(monkeypatch: pytest.MonkeyPatch, hosts: Any, url: str) -> None:
    monkeypatch.delenv("ASGICTL_REDIS", raising=False)
    monkeypatch.delenv("ASGICTL_NAME", raising=False)
    assert url_of(hosts) == url
    monkeypatch.setenv("ASGICTL_REDIS", "unix:///ours")
    assert url_of(hosts) == (url if hosts else "unix:///ours")


def test_without_hosts_it_is_the_redis_of_the_instance_as_for_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGICTL_REDIS", raising=False)
    monkeypatch.delenv("ASGICTL_NAME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def run(name: str, redis: str) -> None:
        run_dir = RunDir(tmp_path / "asgictl" / name)
        run_dir.create()
        run_dir.write(DESCRIPTION, json.dumps({"redis": redis}))

    run("shop", "embedded")
    assert url_of(None) == f"unix://{tmp_path}/asgictl/shop/redis.sock", "the only one"
    run("blog", "none")
    assert url_of(None) == "redis://localhost:6379", "nobody knows which"
    for name, url in (("shop", f"unix://{tmp_path}/asgictl/shop/redis.sock"), ("blog", "redis://localhost:6379")):
        monkeypatch.setenv("ASGICTL_NAME", name)
        assert url_of(None) == url
    monkeypatch.setenv("ASGICTL_NAME", "news")
    with pytest.raises(
        RedisError, match=r"no instance 'news' is running; running: blog, shop, or set ASGICTL_REDIS, or ho"
    ):
        url_of(None)
    assert url_of(["redis://h"]) == "redis://h"
    monkeypatch.setenv("ASGICTL_RUN_DIR", str(tmp_path))
    assert url_of(None) == "redis://localhost:6379", "the instance is being started"


@scenario
async def test_a_redis_that_does_not_run_is_told_with_what_to_set() -> None:
    layer = RedisChannelLayer(["redis://127.0.0.1:1"])
    with pytest.raises(RedisError, match=r"connecting to 127.0.0.1:1.* hosts in CHANNEL_LAYERS, else ASGICTL_REDIS"):
        await layer.send("work", {})


@pytest.mark.parametrize("hosts", ["redis://h", ["redis://a", "redis://b"], [6379], [{"host": "h"}]])
def test_hosts_that_are_none(hosts: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"hosts must name exactly one|a host must be a URL"):
        RedisChannelLayer(hosts)


@scenario
async def test_a_key_of_somebody_elses_is_a_clear_error(url: str, client: Any, name: str) -> None:
    client.set(f"asgictl:{{{name}}}:layer:ch:work", "x")
    layer = RedisChannelLayer([url], name)
    for send in (layer.send, lambda *message: asyncio.to_thread(layer.send_sync, *message)):
        with pytest.raises((RedisError, redis.ResponseError), match="WRONGTYPE"):
            await send("work", {"n": 1})


@scenario
async def test_a_process_reads_once_however_many_begin_together(url: str, client: Any, name: str) -> None:
    layer = RedisChannelLayer([url], name)
    tasks = [asyncio.create_task(layer.receive(f"work{n}")) for n in range(20)]
    channels = await asyncio.gather(*(layer.new_channel() for _ in range(20)))
    for n in range(20):
        await layer.send(channels[n], {"n": n})
        await layer.send(f"work{n}", {"n": n})
    assert [(await task)["n"] for task in tasks] == list(range(20))
    assert [(await layer.receive(channel))["n"] for channel in channels] == list(range(20))
    assert all(not layer._mailboxes[channel].messages for channel in channels)
