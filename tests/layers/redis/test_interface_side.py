"""The channel layer as interfaces and in-process servers see it, on a real server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.errors import RedisError
from asgictl.interface.groups import Groups
from asgictl.layers.redis.interface_side import RedisGroupLayer
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import member, reap
from asgictl.layers.redis.reader import after, position_of
from asgictl.layers.redis.send_commands import Broadcasts, reply_command
from asgictl.wire.messages import VERSION, Broadcast, Connect, Frame, Frames, Job, Lost, encode
from tests.conftest import scenario, until
from tests.layers.conftest import (
    INTERFACE,
    Interface,
    Workers,
    committed,
    done,
    names,
    receive,
    request,
    response,
    serving,
    taken,
)


def test_an_entrys_id_compares_as_numbers_do() -> None:
    assert position_of(b"1700000000000-3") == (1700000000000, 3)
    assert position_of(b"9-10") > position_of(b"9-9")
    assert after(b"9-9") == "9-10"


@scenario
async def test_broadcasts_published_after_a_join_reach_it_and_earlier_ones_do_not(
    url: str, name: str, worker: Workers
) -> None:
    class Member:
        id = "i/1"
        frames: list[Frame] = []  # noqa: RUF012

        def deliver(self, frame: Frame, may_drop: bool = False) -> None:
            self.frames.append(frame)

    layer, groups, member = worker(name), Groups(), Member()
    async with serving(url, name) as interface:
        for frame in ("early", "earlier"):
            interface.layer.publish(Broadcast("g", frame))
        await interface.append(Connect("host.1.aa/1", 1, 1, b"", b""))
        entry = await taken(layer)
        await committed(layer, entry, done(1, joins=["g"]), [Broadcast("g", "of the join itself")])
        reply, position = await interface.replies.get()
        assert reply == done(1, joins=["g"])
        assert position is not None
        groups.join("g", member, position)
        interface.layer.publish(Broadcast("g", "late"))
        for _ in range(4):
            groups.deliver(*await interface.broadcasts.get())
        assert member.frames == ["of the join itself", "late"]


@scenario
async def test_every_process_hears_a_broadcast_in_order_and_a_new_one_hears_nothing_old(url: str, name: str) -> None:
    heard: asyncio.Queue[Frame] = asyncio.Queue()
    other = RedisGroupLayer(url, name, lambda broadcast, _: heard.put_nowait(broadcast.frame))
    async with serving(url, name) as interface:
        interface.layer.publish(Broadcast("g", "old"))
        await interface.broadcasts.get()
        await other.start()
        for frame in ("a", b"b", "c"):
            interface.layer.publish(Broadcast("g", frame))
        assert [await heard.get() for _ in range(3)] == ["a", b"b", "c"]
        assert [(await interface.broadcasts.get())[0].frame for _ in range(3)] == ["a", b"b", "c"]
        await other.stop()


@scenario
async def test_a_broadcast_past_its_retention_is_forgotten_though_no_other_comes(
    url: str, name: str, client: Any
) -> None:
    keys = Keys(name)
    client.xadd(keys.broadcast, dict([encode(Broadcast("g", "x"))]), id="1-1")
    async with serving(url, name):
        while client.xlen(keys.broadcast):  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.05)


@scenario
async def test_joining_and_leaving_write_nothing_to_redis(url: str, name: str, worker: Workers, client: Any) -> None:
    """A turn with memberships causes the same commands as one without."""

    def written(before: dict[str, Any]) -> dict[str, int]:
        now = client.info("commandstats")
        calls = {each: now[each]["calls"] - before.get(each, {"calls": 0})["calls"] for each in now}
        writing = (
            "xadd",
            "hset",
            "set",
            "sadd",
            "zadd",
            "hincrby",
            "lpush",
            "rpush",
            "eval",
            "evalsha",
            "xack",
            "xdel",
        )
        return {each: calls.get(f"cmdstat_{each}", 0) for each in writing}

    layer, counts = worker(name), []
    async with serving(url, name) as interface:
        for number, memberships in enumerate(([], ["a", "b", "c"], ["d"]), 1):
            await interface.append(receive(number, "x"))
            entry = await taken(layer)
            interface.layer._ticker.cancel()  # type: ignore[union-attr]  # whose beats count too
            before = client.info("commandstats")
            await committed(layer, entry, replace(done(number), joins=memberships, leaves=memberships))
            await interface.replies.get()
            counts.append(written(before))
    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["xadd"] == 1, "the reply"


@scenario
async def test_broadcasts_are_kept_up_to_so_many_bytes_and_a_reader_behind_them_tells_of_the_gap(
    url: str, name: str, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgictl.layers.redis.interface_side.BROADCAST_RETENTION_BYTES", 1 << 20)
    keys = Keys(name)
    async with serving(url, name) as interface:
        await interface.layer._reader.link.stop()  # away, as with a cut connection
        for number in range(3000):
            interface.layer.publish(Broadcast("g", f"{number} " + "x" * 1000))
            if number % 100 == 0:
                await interface.layer._link.ask("PING")
        while client.memory_usage(keys.broadcast) > 1 << 20:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.01)
        kept = client.xlen(keys.broadcast)
        assert 0 < kept < 3000
        assert "were lost" not in caplog.text
        await interface.layer._reader.link.start()
        heard = [str((await interface.broadcasts.get())[0].frame).split()[0] for _ in range(kept)]
        assert heard == [str(number) for number in range(3000 - kept, 3000)]
        assert caplog.text.count("group messages were lost") == 1
        interface.layer.publish(Broadcast("g", "on"))
        assert (await interface.broadcasts.get())[0].frame == "on"
    async with serving(url, name) as interface:  # which has missed nothing
        interface.layer.publish(Broadcast("g", "on"))
        assert (await interface.broadcasts.get())[0].frame == "on"
    assert caplog.text.count("group messages were lost") == 1


@scenario
async def test_a_reply_or_broadcast_of_an_unknown_version_is_passed_over(
    url: str, name: str, worker: Workers, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer, keys = worker(name), Keys(name)
    async with serving(url, name) as interface:
        client.xadd(keys.replies(interface.id), {"9": b""})
        client.xadd(keys.broadcast, {"9": b""})
        interface.layer.publish(Broadcast("g", "x"))
        await interface.append(request())
        await committed(layer, await taken(layer), response())
        assert (await interface.replies.get())[0] == response()
        assert (await interface.broadcasts.get())[0] == Broadcast("g", "x")
    assert sum("skipped entry" in message for message in caplog.messages) == 2


@scenario
async def test_two_names_on_one_redis_never_meet(url: str, worker: Workers) -> None:
    shop, blog = next(names), next(names)
    shops, blogs = worker(shop), worker(blog)
    async with serving(url, shop) as one, serving(url, blog) as two:
        await one.append(receive(1, "shop"))
        await two.append(receive(1, "blog"))
        for layer, text in ((shops, "shop"), (blogs, "blog")):
            await committed(layer, await taken(layer), done(1, text), [Broadcast("g", text)])
        for interface, text in ((one, "shop"), (two, "blog")):
            assert (await interface.replies.get())[0] == done(1, text)
            assert (await interface.broadcasts.get())[0].frame == text
            assert interface.replies.empty()
            assert interface.broadcasts.empty()
        assert shops.refused == blogs.refused == 0


@scenario
async def test_an_interface_whose_links_were_killed_hears_what_came_meanwhile(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(request())
        entry = await taken(layer)
        client.client_kill_filter(_type="normal", skipme=True)
        heard: asyncio.Queue[object] = asyncio.Queue()
        interface.layer.append("http.request", request("host.1.aa/2"), heard.put_nowait, repeatable=False)
        assert isinstance(await heard.get(), ConnectionError), "the caller learns that its event's fate is unknown"
        layer.commit(entry, response(), [])
        for _ in range(2):
            await asyncio.to_thread(layer.read, 1)
        assert (await interface.replies.get())[0] == response()


@scenario
async def test_after_a_refused_read_each_broadcast_is_heard_once(url: str, name: str, client: Any) -> None:
    async with serving(url, name) as interface:

        def reading() -> set[str]:
            return {each["id"] for each in client.client_list() if each["cmd"] == "xread"}

        await asyncio.to_thread(until, reading, "it reads")
        (before,) = reading()
        client.client_unblock(before, error=True)
        await asyncio.to_thread(until, lambda: reading() - {before}, "it reads again")
        for number in range(3):
            interface.layer.publish(Broadcast("g", str(number)))
        assert [(await interface.broadcasts.get())[0].frame for _ in range(3)] == ["0", "1", "2"]
        assert interface.broadcasts.empty()


@scenario
@pytest.mark.parametrize("repeatable", [True, False])
async def test_an_event_that_a_replica_does_not_take_it_takes_as_master(
    repeatable: bool, url: str, name: str, client: Any
) -> None:
    """A failover in which the connection to the old master lives on."""
    async with serving(url, name) as interface:
        client.config_resetstat()
        client.replicaof("127.0.0.1", 1)
        heard: asyncio.Queue[object] = asyncio.Queue()
        event = request("host.1.aa/2")
        interface.layer.append("http.request", event, heard.put_nowait, repeatable=repeatable)
        withdrawn = interface.layer.append("http.request", event, heard.put_nowait, repeatable=repeatable)
        await asyncio.to_thread(until, lambda: client.info("errorstats"), "it refuses it")
        await interface.layer._link.ask("PING")
        withdrawn.withdraw()
        client.replicaof("NO", "ONE")
        assert isinstance(await heard.get(), bytes)
        await interface.layer._link.ask("PING")
        assert client.xlen(Keys(name).channel("http.request")) == 1
        assert heard.empty()


@scenario
async def test_jobs_that_a_replica_did_not_take_it_takes_as_master(url: str, name: str, client: Any) -> None:
    layer, stream = RedisGroupLayer(url, name, lambda _broadcast, _position: None), Keys(name).channel("background.a")
    await layer.start()
    client.config_resetstat()
    client.replicaof("127.0.0.1", 1)
    for number in range(3):
        layer.publish(Job(str(number), 1, "a", b""))
    await asyncio.to_thread(until, lambda: client.info("errorstats"), "it refuses them")
    client.replicaof("NO", "ONE")
    await asyncio.to_thread(until, lambda: client.xlen(stream) == 3, "it takes them")
    sent = [encode(Job(str(number), 1, "a", b""))[1] for number in range(3)]
    assert [next(iter(fields.values())) for _, fields in client.xrange(stream)] == sent
    await layer.stop()


@scenario
async def test_broadcasts_that_redis_may_not_take_now_are_sent_later_in_order(
    url: str, name: str, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layer, stream = RedisGroupLayer(url, name, lambda _broadcast, _position: None), Keys(name).broadcast
    await layer.start()
    client.config_set("min-replicas-to-write", 1)
    try:
        for number in range(3):
            layer.publish(Broadcast("g", str(number)))
        while "cannot run commands now" not in caplog.text:  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)
        layer.publish(Broadcast("g", "3"))
        monkeypatch.setattr("asgictl.layers.redis.link.QUEUE_BYTES", 1000)
        layer.publish(Broadcast("g", "x" * 1000))
        await asyncio.sleep(0)
        assert "a message to a group or a channel was lost" in caplog.text
        assert client.xlen(stream) == 0
    finally:
        client.config_set("min-replicas-to-write", 0)
    await asyncio.to_thread(until, lambda: client.xlen(stream) == 4, "it takes them")
    sent = [encode(Broadcast("g", str(number)))[1] for number in range(4)]
    assert [next(iter(fields.values())) for _, fields in client.xrange(stream)] == sent
    await layer.stop()


@scenario
async def test_an_interface_goes_on_when_redis_has_forgotten_everything(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async with serving(url, name) as interface:
        lost = Lost("host.1.aa/1", 1, 1, False)
        client.xadd(Keys(name).replies(interface.id), {f"{VERSION}": encode(lost)[1]}, id="9999999999999-0")
        assert (await interface.replies.get())[0] == lost  # and the ids of a new Redis lie before
        client.flushall()
        interface.layer._refresh()
        await interface.forgotten.wait()
        assert not interface.fenced.is_set()
        layer = worker(name)
        await interface.append(receive(1, "again"))
        await committed(layer, await taken(layer), done(1))
        assert (await interface.replies.get())[0] == done(1)


@scenario
async def test_an_interface_that_was_taken_for_dead_is_fenced(url: str, name: str, client: Any) -> None:
    async with serving(url, name) as interface:
        reap(client, Keys(name), member("interface", interface.id), seen=True)
        interface.layer._refresh()
        await interface.fenced.wait()
        assert not interface.forgotten.is_set()


@scenario
async def test_a_fenced_interface_is_reaped_by_others(url: str, name: str, client: Any) -> None:
    keys, dead = Keys(name), member("interface", INTERFACE)

    async with serving(url, name) as interface:
        said = keys.channel("websocket.disconnect").encode() + b" x"
        last_wills = {f"{INTERFACE}/{number}": said for number in range(250)}
        client.hset(keys.last_wills(INTERFACE), mapping=last_wills)
        reap(client, keys, dead, seen=True)  # reaps 200
        interface.layer._refresh()
        await interface.fenced.wait()
    reap(client, keys, dead)
    assert client.xlen(keys.channel("websocket.disconnect")) == 250


@scenario
async def test_an_interface_that_stops_without_deregistering_leaves_all_that_reaping_needs(
    url: str, name: str, client: Any
) -> None:
    keys = Keys(name)

    interface = Interface(url, name)
    await interface.layer.start()
    client.hset(keys.last_wills(INTERFACE), f"{INTERFACE}/1", b"x")
    await interface.layer.stop()
    assert client.exists(keys.replies(INTERFACE), keys.last_wills(INTERFACE)) == 2
    assert client.zscore(keys.alive, member("interface", INTERFACE))


@scenario
async def test_an_audit_misses_only_what_is_neither_in_its_channel_nor_answered(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer, gone = worker(name), list[str]()
    async with serving(url, name) as interface:

        async def audit(said: str, entry: bytes) -> None:
            event = receive(1, "x")
            interface.layer.audit(event.channel, event, entry, lambda: gone.append(said))
            await interface.layer._link.ask("PING")

        await interface.append(receive(1, "x"))
        entry = await taken(layer)
        await audit("in its channel", entry.id)
        await interface.layer._reader.link.stop()
        await committed(layer, entry, done(1))
        await audit("answered", entry.id)
        assert gone == []
        client.delete(Keys(name).replies(interface.id))
        await audit("lost", entry.id)
        assert gone == ["lost"]


@scenario
async def test_of_a_connection_that_is_over_no_turn_is_kept(url: str, name: str, worker: Workers, client: Any) -> None:
    layer, turns = worker(name), Keys(name).turns("host.1.aa/1")
    async with serving(url, name) as interface:
        for connection in ("host.1.aa/1", "host.1.aa/2"):
            await interface.append(receive(1, "x", connection=connection))
            await committed(layer, await taken(layer), done(1, connection=connection))
        interface.layer.forget("host.1.aa/1")
        await interface.layer._link.ask("PING")
        assert client.hgetall(turns) == {b"host.1.aa/2": b"1"}


@scenario
async def test_what_was_given_up_is_kept(url: str, name: str, client: Any) -> None:
    async with serving(url, name) as interface:
        interface.layer.dead_letter("websocket.receive.slow", receive(1, "x"), "three workers died")
        await interface.layer._link.ask("PING")
    ((_, fields),) = client.xrange(Keys(name).dead)
    assert fields == {
        b"%d" % VERSION: encode(receive(1, "x"))[1],
        b"channel": b"websocket.receive.slow",
        b"reason": b"three workers died",
    }


def test_a_redis_that_is_away_is_a_redis_error(name: str, tmp_path: Path) -> None:
    layer = RedisGroupLayer(f"unix://{tmp_path}/absent", name, lambda broadcast, position: None)
    with pytest.raises(RedisError, match="cannot be used"):
        asyncio.run(layer.start())


OLD, SOCKETS = "host.3.cc", "host.3.cc.s"


async def following(old: Interface, new: Interface, heard: list[tuple[object, object]]) -> None:
    """Have a second interface follow the identity of the first one's sockets."""
    position = old.layer.replies_read(SOCKETS)
    await new.layer.follow(SOCKETS, old.layer.epoch, position, lambda reply, _, at: heard.append((reply, at)))


@scenario
async def test_an_identity_is_read_by_two_processes_and_then_by_one(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer, keys, heard = worker(name), Keys(name), list[tuple[object, object]]()
    connection = f"{SOCKETS}/1"
    async with serving(url, name, OLD) as old, serving(url, name) as new:
        await old.append(receive(1, "x", connection=connection))
        await committed(layer, await taken(layer), done(1, connection=connection))
        assert (await old.replies.get())[0] == done(1, connection=connection)
        old.layer.keep_replies(SOCKETS, keeps=True)
        await following(old, new, heard)
        await new.append(receive(2, "x", connection=connection))
        await committed(layer, await taken(layer), done(2, connection=connection))
        assert (await old.replies.get())[0] == done(2, connection=connection)
        while not heard:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.01)
        assert heard == [(done(2, connection=connection), new.layer.replies_read(SOCKETS))]
        old.layer.unfollow(SOCKETS)
        before = client.zscore(keys.alive, member("interface", SOCKETS))
        new.layer._refresh()
        while client.zscore(keys.alive, member("interface", SOCKETS)) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await new.layer.end_identity(SOCKETS)
        assert not client.exists(keys.replies(SOCKETS))
        assert client.zscore(keys.alive, member("interface", SOCKETS)) is None


@scenario
async def test_an_identity_that_others_have_reaped_is_not_followed(url: str, name: str, client: Any) -> None:
    keys, heard = Keys(name), list[tuple[object, object]]()
    async with serving(url, name, OLD) as old, serving(url, name) as new:
        reap(client, keys, member("interface", SOCKETS), seen=True)
        await following(old, new, heard)
        assert new.fenced.is_set()
        assert not client.exists(keys.replies(SOCKETS)), "it came back from the dead"


@scenario
async def test_a_survivor_reaps_what_it_does_not_hold_once(url: str, name: str, client: Any) -> None:
    keys = Keys(name)
    stream = keys.channel("websocket.disconnect")
    client.sadd(keys.channels, stream)
    async with serving(url, name, OLD) as old:
        for number in range(450):
            client.hset(keys.last_wills(SOCKETS), f"{SOCKETS}/{number}", f"{stream} {number}")
            client.hset(keys.turns(SOCKETS), f"{SOCKETS}/{number}", 1)
        await old.append(receive(2, "x", connection=f"{SOCKETS}/1"))
        client.sadd(keys.channels, keys.channel("websocket.receive"))
        assert await old.layer.reap_others(SOCKETS, [f"{SOCKETS}/0"]) == 1, "one still has an event"
        assert await old.layer.reap_others(SOCKETS, [f"{SOCKETS}/0"]) == 1
        assert client.xlen(stream) == 448
        client.delete(keys.channel("websocket.receive"))
        assert await old.layer.reap_others(SOCKETS, [f"{SOCKETS}/0"]) == 0
        assert client.xlen(stream) == 449
        assert client.hkeys(keys.last_wills(SOCKETS)) == client.hkeys(keys.turns(SOCKETS)) == [f"{SOCKETS}/0".encode()]
        assert client.zscore(keys.alive, member("interface", SOCKETS)), "its lease was taken away"


@scenario
async def test_broadcasts_between_two_positions_are_fetched_in_order(url: str, name: str) -> None:
    async with serving(url, name) as interface:
        for number in range(3):
            interface.layer.publish(Broadcast("g", f"{number}"))
        first, second, _ = [await interface.broadcasts.get() for _ in range(3)]
        found = await interface.layer.broadcasts_between(first[1], second[1])
        assert found == [second]
        assert [each.frame for each, _ in await interface.layer.broadcasts_between((0, 0), (1 << 62, 0))] == list("012")


@scenario
async def test_a_broadcast_that_was_sent_twice_is_fetched_once(url: str, name: str, client: Any) -> None:
    async with serving(url, name) as interface:
        command = Broadcasts("s").command(Keys(name), Broadcast("g", "twice"))
        for _ in range(2):
            client.execute_command(*command)
        interface.layer.publish(Broadcast("g", "last"))
        assert [(await interface.broadcasts.get())[0].frame for _ in range(2)] == ["twice", "last"]
        found = await interface.layer.broadcasts_between((0, 0), (1 << 62, 0))
        assert [each.frame for each, _ in found] == ["twice", "last"]


@scenario
async def test_replies_between_two_positions_are_fetched_in_order(url: str, name: str, client: Any) -> None:
    keys = Keys(name)
    async with serving(url, name, OLD) as old, serving(url, name) as new:
        ids = [client.execute_command(*reply_command(keys, Frames(f"{SOCKETS}/1", [f"{n}"]))) for n in range(3)]
        client.xadd(keys.replies(SOCKETS), {"asgictl": "no reply"})
        first, second, _ = map(position_of, ids)
        assert await new.layer.replies_between(SOCKETS, first, second) == [(Frames(f"{SOCKETS}/1", ["1"]), second)]
        found = await new.layer.replies_between(SOCKETS, (0, 0), (1 << 62, 0))
        assert [each.frames for each, _ in found if isinstance(each, Frames)] == [["0"], ["1"], ["2"]]
        assert await new.layer.replies_between(SOCKETS, second, second) == []
        assert old.layer.replies_read(SOCKETS) >= first
