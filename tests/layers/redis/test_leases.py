"""Leases, releasing and reaping, on a real server."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from asgictl.app.run import LAST_TURN
from asgictl.layers.base import Entry
from asgictl.layers.redis import leases
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.layers.redis.leases import (
    LEASE_MILLISECONDS,
    Beat,
    beat,
    beat_answer,
    beat_command,
    leave_command,
    member,
    reap,
    release_command,
)
from asgictl.wire.messages import VERSION, Connect, Died, Disconnect, Event, Lost, encode
from tests.conftest import scenario, until
from tests.layers.conftest import Workers, committed, done, read_some, receive, request, serving, taken

A, B = "host.7.aa", "host.7.aab"  # workers; neither may pass for the other


@pytest.fixture
def keys(name: str) -> Keys:
    return Keys(name)


class Members:
    """Beats for whom a test names, and does nothing about the dead."""

    def __init__(self, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = client
        self._keys = keys
        self._monkeypatch = monkeypatch

    def beat(self, id: str, epoch: bytes = b"", role: str = "worker", channels: Sequence[str] = ()) -> Beat:
        return beat_answer(self._client.execute_command(*beat_command(self._keys, role, id, epoch, channels)))

    def lapse(self, id: str, role: str = "worker") -> None:
        """Have somebody live whose lease has lapsed by now."""
        with self._monkeypatch.context() as patch:
            patch.setitem(LEASE_MILLISECONDS, role, -1)
            self.beat(id, role=role)

    def reap(self, dead: str, **more: Any) -> int:
        return reap(self._client, self._keys, dead, **more)


@pytest.fixture
def members(client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Members:
    return Members(client, keys, monkeypatch)


def test_a_beat_renews_a_lease(members: Members, client: Any, keys: Keys) -> None:
    epoch = members.beat(A).epoch
    client.zadd(keys.alive, {member("worker", A): 1})
    assert members.beat(A, epoch) == Beat(epoch, False, []), "lapsed, but nobody has acted upon it"
    assert client.zscore(keys.alive, member("worker", A)) == int(client.get(keys.clock)) + LEASE_MILLISECONDS["worker"]


def test_a_lease_that_lapsed_is_told_by_the_beat_of_another(members: Members) -> None:
    members.lapse(A)
    members.lapse("host.1.aa", "interface")
    assert sorted(members.beat(B).dead) == ["interface/host.1.aa", "worker/host.7.aa"]


def test_who_hears_of_the_dead_sees_to_them(members: Members, client: Any, keys: Keys) -> None:
    members.lapse(A)
    assert beat(client, keys, "worker", B, b"").dead == [member("worker", A)]
    assert client.zrange(keys.alive, 0, -1) == [member("worker", B).encode()]


@pytest.mark.slow
def test_what_comes_of_a_dead_worker_after_its_reaper_is_seen_to(members: Members, client: Any, keys: Keys) -> None:
    """What it had sent before a cut is sent again by its kernel, and takes an event when nobody is to have it."""
    stream = keys.channel("http.request")
    client.xgroup_create(stream, WORKERS, "0", mkstream=True)
    members.beat(B)
    for consumer in (f"{A}.0", f"{B}.0", "nobody's"):
        client.xadd(stream, {"1": "x"})
        client.xreadgroup(WORKERS, consumer, {stream: ">"})
    dead = [member("worker", A)]
    until(lambda: members.beat(B, channels=["http.request"]).dead == dead, "a beat looks at consumers")
    members.reap(dead[0])
    assert [each["name"] for each in client.xinfo_consumers(stream, WORKERS)] == [f"{B}.0".encode(), b"nobody's"]


def test_who_leaves_in_order_is_not_told_of(members: Members, client: Any, keys: Keys) -> None:
    members.lapse(A)
    client.execute_command(*leave_command(keys, "worker", A))
    assert members.beat(B).dead == []


@pytest.mark.parametrize(("role", "id"), [("worker", A), ("interface", "host.1.aa")])
def test_who_was_taken_for_dead_is_fenced(role: str, id: str, members: Members, client: Any, keys: Keys) -> None:
    epoch = members.beat(id, role=role).epoch
    client.hset(keys.last_wills(id), mapping={f"{id}/{number}": kept(keys, b"x") for number in range(201)})
    for _ in range(2):  # reaping takes two calls here, a release one
        members.reap(member(role, id), seen=True)
        assert members.beat(id, epoch, role) == Beat(epoch, True, [])


def test_when_redis_has_forgotten_all_everybody_registers_again(members: Members, client: Any, keys: Keys) -> None:
    epoch = members.beat(A).epoch
    client.flushall()
    again = members.beat(A, epoch)
    assert (again.epoch == epoch, again.fenced) == (False, False)
    assert not members.beat(A, again.epoch).fenced
    assert client.zscore(keys.alive, member("worker", A))


@pytest.mark.parametrize("gap", [4_000, -4_000])
def test_nobody_is_dead_while_there_is_grace_after_time_stood_still(
    gap: int, members: Members, client: Any, keys: Keys
) -> None:
    members.lapse(A)
    client.decrby(keys.clock, gap)
    assert [members.beat(B).dead for _ in range(2)] == [[], []]
    assert int(client.get(keys.grace)) == pytest.approx(int(client.get(keys.clock)) + 15_000, abs=2_000)
    client.set(keys.grace, 1)
    assert members.beat(B).dead == [member("worker", A)]


def test_a_death_that_cannot_be_seen_to_does_not_stop_a_beat(
    members: Members, client: Any, keys: Keys, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.lapse(A)
    monkeypatch.setattr(leases, "reap_command", lambda *_args, **_more: ("EVAL", "return {err = 'no'}", 0))
    assert beat(client, keys, "worker", B, b"").dead == [member("worker", A)]
    assert "could not reap worker/host.7.aa" in caplog.text
    assert client.zscore(keys.alive, member("worker", B))


@pytest.mark.parametrize(
    "key", ["alive", "epoch", "clock", "grace", "channels", "dead", "broadcast", "trimmed", "manifest"]
)
def test_whatever_stands_in_the_place_of_a_key_that_beats_need_is_removed(
    key: str, members: Members, client: Any, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """A9: nobody is fenced for it, nobody taken to have forgotten everything."""
    epoch = members.beat(A).epoch
    members.beat(B)
    client.delete(getattr(keys, key))
    client.rpush(getattr(keys, key), "x")
    rejected: list[str] = []
    for worker in (A, B):
        told = beat(client, keys, "worker", worker, epoch, channels=["jobs"], reject=rejected.append)
        assert (told.epoch, told.fenced) == (epoch, False)
    assert rejected == [leases.REMOVED]
    assert client.type(getattr(keys, key)) != b"list"
    assert {client.zscore(keys.alive, member("worker", worker)) for worker in (A, B)} != {None}
    assert caplog.text.count("asgictl had not written") == 1


@pytest.mark.parametrize(
    ("key", "value"), [("clock", "abc"), ("clock", "nan"), ("grace", "abc"), ("grace", "inf"), ("epoch", "")]
)
def test_a_value_that_is_none_is_passed_over(key: str, value: str, members: Members, client: Any, keys: Keys) -> None:
    """A9."""
    epoch = members.beat(B).epoch
    members.lapse(A)
    client.set(getattr(keys, key), value)
    assert members.beat(B, epoch)[:3] == (epoch, False, [member("worker", A)])


def test_a_served_channel_is_a_stream_and_what_is_delayed_beside_it_a_zset(
    members: Members, client: Any, keys: Keys
) -> None:
    """A9."""
    stream, delayed = keys.channel("background.x"), keys.delayed("background.x")
    for key in (stream, delayed, keys.turns("i"), keys.last_wills("i")):
        client.set(key, "x")
    assert set(beat(client, keys, "worker", B, b"", channels=["background.x"]).removed) == {
        stream.encode(),
        delayed.encode(),
    }
    beat(client, keys, "interface", "i", b"")
    assert not client.exists(stream, delayed, keys.turns("i"), keys.last_wills("i"))


def test_who_has_lapsed_is_told_of_behind_members_that_are_nobody(members: Members, client: Any, keys: Keys) -> None:
    """A9: and they are removed, with names that are no channels."""
    members.lapse(A)
    nobody = [b"\xc1", b"worker/", b"worker/a b", b"other/a", *(b"%d" % number for number in range(100))]
    client.zadd(keys.alive, dict.fromkeys(nobody, 0))
    channel = keys.channel("background.x").encode()
    client.sadd(keys.channels, b"\xc1", channel + b"\xc1", keys.alive, channel)
    told = members.beat(B)
    assert (told.dead, told.background) == ([member("worker", A)], (channel.decode(),))
    assert set(told.removed) == {*nobody, b"\xc1", channel + b"\xc1", keys.alive.encode()}
    assert members.beat(B).removed == ()
    assert client.smembers(keys.channels) == {channel}


def test_delayed_messages_that_are_none_are_removed_and_counted(client: Any, keys: Keys) -> None:
    """A9."""
    delayed = keys.delayed("background.x")
    client.sadd(keys.channels, keys.channel("background.x"))
    client.zadd(delayed, {"x": 0, "x y": 0, b"\xc1": 0, "1 y\n": 1})
    rejected: list[str] = []
    beat(client, keys, "worker", B, b"", reject=rejected.append)
    assert rejected == 3 * [leases.REMOVED]
    assert not client.exists(delayed)
    assert [fields for _, fields in client.xrange(keys.channel("background.x"))] == [{b"1": b"y\n"}]


@pytest.mark.parametrize("will", ["nowhere", "no where", "x", ""])
def test_a_dead_interface_is_reaped_beside_wills_and_channels_that_are_none(
    will: str, members: Members, client: Any, keys: Keys
) -> None:
    """A9."""
    client.hset(keys.last_wills("i"), mapping={"x": will, "i/2": f"{keys.channel('websocket.disconnect')} e"})
    client.hset(keys.last_wills("i"), "i/3", f"{keys.channel('zset')} e")
    client.zadd(keys.channel("zset"), {"x": 1})
    client.sadd(keys.channels, keys.channel("zset"), keys.alive, b"\xc1")
    assert members.reap(member("interface", "i"), seen=True) == 0
    assert not client.exists(keys.last_wills("i"))
    assert len(client.xrange(keys.channel("websocket.disconnect"))) == 1


def test_a_dead_interface_whose_wills_are_no_hash_is_reaped(members: Members, client: Any, keys: Keys) -> None:
    """A9."""
    client.set(keys.last_wills("i"), "x")
    assert members.reap(member("interface", "i"), seen=True) == 0


def note(entry: Entry) -> str:
    """Return what a worker notes when it starts an event."""
    return f"{entry.stream.decode()} {entry.id.decode()}"


@scenario
async def test_a_release_tells_each_interface_what_is_lost_and_leaves_other_workers_theirs(
    url: str, name: str, worker: Workers, client: Any, keys: Keys, members: Members
) -> None:
    dead, other = worker(name, f"{A}.0"), worker(name, f"{B}.0")
    async with serving(url, name) as one, serving(url, name, "host.2.bb") as two:
        await one.append(receive(1, "others"))
        theirs = await taken(other)
        await one.append(receive(5, "x", connection="host.1.aa/2"))
        started = await taken(dead)
        await one.append(receive(6, "x", connection="host.1.aa/3"))
        await two.append(receive(2, "x", connection="host.2.bb/1"))
        held = await asyncio.to_thread(read_some, dead)
        assert members.reap(member("worker", A), seen=True, started=(note(started),)) == 3
        assert {(await one.replies.get())[0] for _ in range(2)} == {
            Lost("host.1.aa/2", 5, 1, True),
            Lost("host.1.aa/3", 6, 1, False),
        }
        assert (await one.replies.get())[0] == Died(A)
        assert [(await two.replies.get())[0] for _ in range(2)] == [Lost("host.2.bb/1", 2, 1, False), Died(A)]
        stream = keys.channel("websocket.receive")
        assert [pending["consumer"] for pending in client.xpending_range(stream, WORKERS, "-", "+", 9)] == [
            f"{B}.0".encode()
        ]
        assert [consumer["name"] for consumer in client.xinfo_consumers(stream, WORKERS)] == [f"{B}.0".encode()]
        assert client.xlen(stream) == 1
        for entry in (started, *held):
            await committed(dead, entry, done(9, connection=entry.event.connection))
        await committed(other, theirs, done(1))
        assert (dead.refused, other.refused) == (3, 0)
        assert (await one.replies.get())[0] == done(1)
        assert one.replies.empty()
        assert two.replies.empty()


@scenario
async def test_what_has_started_is_told_apart_from_an_entry_of_the_same_id_in_another_channel(
    url: str, name: str, worker: Workers, client: Any, keys: Keys, members: Members
) -> None:
    layer = worker(name, f"{A}.0")
    async with serving(url, name) as interface:
        for event in (request(), receive(1, "x", connection="host.1.aa/2")):
            add(client, keys, event, "5-0")
        held = read_some(layer)
        (started,) = (entry for entry in held if entry.event == request())
        assert members.reap(member("worker", A), seen=True, started=(note(started),)) == len(held) == 2
        assert {(await interface.replies.get())[0] for _ in held} == {
            Lost("host.1.aa/1", 0, 1, True),
            Lost("host.1.aa/2", 1, 1, False),
        }


@scenario
async def test_a_stream_without_a_cursor_does_not_stop_a_release(
    url: str, name: str, worker: Workers, client: Any, keys: Keys, members: Members
) -> None:
    layer = worker(name, f"{A}.0")
    for channel in ("absent", "without.cursor"):
        client.sadd(keys.channels, keys.channel(channel))
    client.xadd(keys.channel("without.cursor"), {f"{VERSION}": b""})
    async with serving(url, name) as interface:
        await interface.append(receive(1, "x"))
        await taken(layer)
        assert members.reap(member("worker", A), seen=True) == 1
        assert (await interface.replies.get())[0] == Lost("host.1.aa/1", 1, 1, True)


@pytest.mark.parametrize(
    ("event", "number"),
    [(request(), 0), (receive(7, b"\xff"), 7), (Connect("host.1.aa/1", 1, 1, b"\xff", b""), 1)],
    ids=["request", "receive", "connect"],
)
@pytest.mark.parametrize(("started", "said"), [((), False), (("?",), True)])
@scenario
async def test_unless_it_is_known_what_had_started_all_of_it_may_have(
    event: Event,
    number: int,
    started: tuple[str, ...],
    said: bool,
    url: str,
    name: str,
    worker: Workers,
    members: Members,
) -> None:
    layer = worker(name, f"{A}.0")
    async with serving(url, name) as interface:
        await interface.append(event)
        await taken(layer)
        assert members.reap(member("worker", A), started=started) == 1
        assert (await interface.replies.get())[0] == Lost(event.connection, number, 1, said)
        assert members.reap(member("worker", A), started=started) == 0


@pytest.mark.parametrize(("role", "id"), [("worker", A), ("interface", "host.1.aa")])
def test_nobody_is_reaped_while_its_lease_lives_unless_its_death_was_seen(role: str, id: str, members: Members) -> None:
    epoch = members.beat(id, role=role).epoch
    assert members.reap(member(role, id)) == -1
    assert not members.beat(id, epoch, role).fenced
    assert members.reap(member(role, id), seen=True) == 0


def last_will(connection: str) -> Disconnect:
    return Disconnect(connection, LAST_TURN, 1, b"scope", b"state", 1006, "")


def kept(keys: Keys, event: bytes, pool: str = "") -> bytes:
    """Return a last will as it stands in its hash: the stream that it goes to, and the event."""
    return f"{keys.channel('websocket.disconnect')}{pool} ".encode() + event


def add(client: Any, keys: Keys, event: Event, id: str = "*") -> None:
    client.xadd(keys.channel(event.channel), {f"{VERSION}": encode(event)[1]}, id=id)


def disconnects(client: Any, keys: Keys) -> list[bytes]:
    return [fields[b"%d" % VERSION] for _, fields in client.xrange(keys.channel("websocket.disconnect"))]


def test_reaping_emits_each_disconnect_once_and_waits_for_what_still_runs(
    name: str, worker: Workers, client: Any, keys: Keys, members: Members
) -> None:
    layer, dead = worker(name), member("interface", "host.1.aa")
    members.beat("host.1.aa", role="interface")
    idle, busy = "host.1.aa/1", "host.1.aa/2"
    for connection in (idle, busy):
        client.hset(keys.last_wills(connection), connection, kept(keys, encode(last_will(connection))[1]))
    client.hset(keys.turns(idle), mapping={idle: 3, "host.1.aa/3": 1})
    client.xadd(keys.replies(idle), {"1": b""})
    add(client, keys, receive(4, "x", connection=busy))
    assert members.reap(dead, seen=True) == 1
    assert [members.beat(B).dead for _ in range(2)] == [[dead], [dead]], "to be called again"
    assert members.reap(dead) == 1
    assert disconnects(client, keys) == [encode(last_will(idle))[1]]
    assert not client.exists(keys.replies(idle))

    turn, last = sorted(read_some(layer), key=lambda entry: entry.event == last_will(idle))
    layer.commit(last, done(LAST_TURN, connection=idle), [])
    layer.commit(turn, done(4, connection=busy), [])
    layer.flush()
    layer.settle()
    assert layer.refused == 1, "nobody is there for the turn's reply"
    assert members.reap(dead) == 0
    assert disconnects(client, keys) == [encode(last_will(busy))[1]]
    assert members.beat(B).dead == []
    assert not client.exists(keys.turns(idle), keys.last_wills(idle))


def test_reaping_emits_at_most_200_disconnects_a_call(client: Any, keys: Keys, members: Members) -> None:
    last_wills = {f"host.1.aa/{number}": kept(keys, b"x") for number in range(450)}
    client.hset(keys.last_wills("host.1.aa"), mapping=last_wills)
    dead = member("interface", "host.1.aa")
    assert [members.reap(dead, seen=True) for _ in range(4)] == [250, 50, 0, 0]
    assert len(disconnects(client, keys)) == 450


def test_a_release_deletes_the_inboxes_of_the_dead_worker_alone(
    name: str, worker: Workers, client: Any, keys: Keys, members: Members
) -> None:
    """Of all its threads, those too that were never given an event."""
    layers = [worker(name, consumer) for consumer in (f"{A}.0", f"{A}.1", f"{B}.0")]
    assert client.exists(*(keys.inbox(layer.inbox) for layer in layers)) == 3
    members.reap(member("worker", A), seen=True)
    assert [client.exists(keys.inbox(layer.inbox)) for layer in layers] == [0, 0, 1]


@scenario
async def test_what_is_given_back_leaves_its_worker_and_its_interface_hears_that_it_had_not_started(
    url: str, name: str, worker: Workers, client: Any, keys: Keys
) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(receive(7, "x", connection="host.1.aa/2"))
        await interface.append(request())
        entries = read_some(layer)
        release = release_command(keys, entries)
        assert client.execute_command(*release) == 2
        assert {(await interface.replies.get())[0] for _ in entries} == {
            Lost("host.1.aa/1", 0, 1, False),
            Lost("host.1.aa/2", 7, 1, False),
        }
        for entry in entries:
            assert (client.xlen(entry.stream), client.xpending(entry.stream, WORKERS)["pending"]) == (0, 0)
        assert client.execute_command(*release) == 0, "twice is harmless"
        await interface.append(request())
        await taken(layer)
        assert interface.replies.empty()


def test_what_reaping_found_is_logged_when_it_was_something(
    client: Any, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    reap(client, keys, member("worker", A), seen=True)
    assert caplog.messages == []
