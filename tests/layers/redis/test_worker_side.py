"""A worker's side of the channel layer, on a real server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.layers.redis import worker_side as module
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.layers.redis.leases import member, reap
from asgictl.layers.redis.reader import LAST_ID, PASSED_OVER
from asgictl.layers.redis.worker_side import RedisWorkerLayer
from asgictl.wire.messages import VERSION, Broadcast, Connect, Credit, Disconnect, Job, Lost, WorkerMessage, encode
from tests.conftest import scenario, until
from tests.layers.conftest import (
    CHANNELS,
    INTERFACE,
    Workers,
    committed,
    done,
    kill,
    read_some,
    receive,
    request,
    response,
    serving,
    taken,
)


@scenario
async def test_the_last_turn_leaves_nothing_of_its_connection(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer = worker(name)
    turns = Keys(name).turns("host.1.aa/1")
    async with serving(url, name) as interface:
        await interface.append(Connect("host.1.aa/1", 1, 1, b"", b""))
        await committed(layer, await taken(layer), done(1))
        assert client.hgetall(turns) == {b"host.1.aa/1": b"1"}
        await interface.append(Disconnect("host.1.aa/1", 2, 1, b"", b"", 1000, ""))
        await committed(layer, await taken(layer), done(2))
        assert client.exists(turns) == 0


@scenario
async def test_a_commit_for_an_interface_that_has_gone_is_refused_and_creates_no_stream(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer, keys = worker(name), Keys(name)
    async with serving(url, name) as interface:
        await interface.append(receive(1, "x"))
        entry = await taken(layer)
    await committed(layer, entry, done(1), [Broadcast("g", "x")])
    assert layer.refused == 1
    left = {key.decode() for key in client.keys(f"*{{{name}}}*")}
    channels = {keys.channel(channel) for channel in CHANNELS}
    assert left == {keys.channels, keys.epoch, keys.clock, keys.inbox(layer.inbox), *channels}


@scenario
async def test_an_event_of_an_unknown_version_is_passed_over_and_acknowledged(
    url: str, name: str, worker: Workers, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer = worker(name)
    stream = Keys(name).channel("http.request")
    client.xadd(stream, {"9": encode(request())[1]})
    client.xadd(stream, {f"{VERSION}": b"garbage"})
    async with serving(url, name) as interface:
        await interface.append(request())
        assert (await taken(layer)).event == request()
        await asyncio.to_thread(layer.flush)
        await asyncio.to_thread(layer.settle)
        assert client.xpending(stream, WORKERS)["pending"] == client.xlen(stream) == 1
    assert sum("skipped entry" in message for message in caplog.messages) == 2


@scenario
async def test_a_worker_reads_its_own_pending_entries_again_after_its_connection_was_killed(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer, other = worker(name), worker(name, "w2")
    async with serving(url, name) as interface:
        await interface.append(request())
        entry = await taken(layer)
        kill(client, layer)
        again = await taken(layer)
        assert (again.id, again.event) == (entry.id, entry.event)
        assert other.read(1) == [], "nobody else has it"
        await committed(layer, again, response())
        await interface.append(request("host.1.aa/2"))
        assert (await taken(layer)).event.connection == "host.1.aa/2", "then it goes on with new ones"
        assert layer.refused == 0


@scenario
async def test_a_commit_that_was_buffered_when_the_connection_was_killed_is_applied(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(request())
        entry = await taken(layer)
        layer.commit(entry, response(), [])
        kill(client, layer)
        for _ in range(2):
            await asyncio.to_thread(layer.read, 1)
        assert (await interface.replies.get())[0] == response()
        assert layer.refused == 0


@scenario
async def test_a_commit_whose_sending_failed_is_sent_again(url: str, name: str, worker: Workers, client: Any) -> None:
    """flush() meets the broken connection first, as after a slow handler; the next reads must make up for it."""

    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(request())
        entry = await taken(layer)
        kill(client, layer)
        layer.commit(entry, response(), [])
        layer.flush()
        assert [await asyncio.to_thread(layer.read, 1) for _ in range(2)] == [[], []], "it need not run again"
        assert (await interface.replies.get())[0] == response()


@scenario
async def test_a_commit_sent_twice_is_applied_once(url: str, name: str, worker: Workers, client: Any) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(receive(1, "x"))
        layer.commit(await taken(layer), done(1, "once"), [])
        layer.flush()
        assert (await interface.replies.get())[0] == done(1, "once")
        kill(client, layer)  # Redis has committed, and its answer is lost
        for _ in range(2):
            await asyncio.to_thread(layer.read, 1)
        assert layer.refused == 1
        await interface.append(receive(2, "x"))
        await committed(layer, await taken(layer), done(2, "next"))
        assert (await interface.replies.get())[0] == done(2, "next")


@scenario
async def test_a_worker_that_closes_keeps_what_it_could_not_send_for_its_release(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    """Were its cursors left with something pending, nobody would ever run that again."""

    layer = worker(name, "host.7.aa.0")
    async with serving(url, name) as interface:
        await interface.append(request())
        layer.commit(await taken(layer), response(), [])
        kill(client, layer)
        layer.close()
        reap(client, Keys(name), member("worker", "host.7.aa"), seen=True)
        assert (await interface.replies.get())[0] == Lost("host.1.aa/1", 0, 1, True)
    assert client.xinfo_consumers(Keys(name).channel("http.request"), WORKERS) == []

    worker.made.clear()


@scenario
async def test_nothing_is_lost_when_redis_has_forgotten_the_script_of_a_commit(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        for number in range(2):
            await interface.append(request(f"host.1.aa/{number}"))
        for entry in await asyncio.to_thread(read_some, layer):
            layer.commit(entry, response(entry.event.connection), [])
        client.script_flush()
        layer.settle()
        assert not layer.settled
        for _ in range(2):
            await asyncio.to_thread(layer.read, 1)
        assert [(await interface.replies.get())[0].connection for _ in range(2)] == ["host.1.aa/0", "host.1.aa/1"]
        assert (layer.settled, layer.refused) == (True, 0)


@scenario
async def test_a_commit_that_a_replica_refused_is_sent_again(url: str, name: str, worker: Workers, client: Any) -> None:
    layer = worker(name)
    async with serving(url, name) as interface:
        await interface.append(request())
        layer.commit(await taken(layer), response(), [])
        client.replicaof("127.0.0.1", 1)
        layer.settle()
        client.replicaof("NO", "ONE")
        assert not layer.settled
        for _ in range(2):
            await asyncio.to_thread(layer.read, 1)
        assert (await interface.replies.get())[0] == response()
        assert (layer.settled, layer.refused) == (True, 0)


def post(client: Any, layer: RedisWorkerLayer, *letters: WorkerMessage) -> None:
    for letter in letters:
        client.xadd(layer.keys.inbox(layer.inbox), {f"{VERSION}": encode(letter)[1]})


LETTERS = [Credit("host.1.aa/1", b"1-0", number) for number in range(4)]


def test_letters_are_read_once_in_order_and_do_not_pile_up(name: str, worker: Workers, client: Any) -> None:
    layer = worker(name)
    post(client, layer, *LETTERS[:2])
    assert layer.mail(None) == (True, list(LETTERS[:2]))
    post(client, layer, LETTERS[2])
    assert layer.mail(None) == (True, [LETTERS[2]])
    assert layer.mail(None) == (True, [])
    assert client.xlen(layer.keys.inbox(layer.inbox)) == 1


BAD_LETTERS: list[dict[str, bytes]] = [{"1": b"\x90"}, {"abc": b"\xc1"}, {f"{VERSION}": b"\xc1", "x": b"y"}]


def test_a_letter_of_no_sense_costs_no_other(name: str, worker: Workers, client: Any) -> None:
    """Nor does one after whose id nothing fits, nor an inbox that begins anew."""
    layer = worker(name)
    inbox = layer.keys.inbox(layer.inbox)
    for each in BAD_LETTERS:
        client.xadd(inbox, each)
    post(client, layer, LETTERS[0])
    assert layer.mail(None) == (True, [LETTERS[0]])
    client.xadd(inbox, BAD_LETTERS[0], LAST_ID)
    assert layer.mail(None) == (True, [])
    post(client, layer, LETTERS[1])
    assert layer.mail(None) == (True, [LETTERS[1]])
    client.delete(inbox)
    client.xadd(inbox, BAD_LETTERS[0], "9999999999999-0")
    assert layer.mail(None) == (True, [])
    client.delete(inbox)
    layer.connect()
    post(client, layer, LETTERS[2])
    assert layer.mail(None) == (True, [LETTERS[2]])


def test_entries_of_no_sense_are_passed_over_counted_and_told_once(
    url: str, name: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rejected: list[str] = []
    layer = RedisWorkerLayer(url, name, "w1", ["background.jobs"], rejected.append)
    layer.connect()
    stream, job = Keys(name).channel("background.jobs"), encode(Job("none:1", 1, "jobs", b""))[1]
    for deaths in ("abc", "-1", "1" * 30, "", "2"):
        client.xadd(stream, {f"{VERSION}": job, "retries": deaths})
    for each in BAD_LETTERS:
        client.xadd(stream, each)
    assert [entry.event.attempt for entry in layer.read(100)] == [3]
    layer.settle()
    assert rejected == [PASSED_OVER] * 7
    assert client.xlen(stream) == 1
    assert 0 < caplog.text.count("skipped entry") < 4
    layer.close()


def kill_mail(client: Any, layer: RedisWorkerLayer) -> None:
    """Cut the connection that letters come over, while nobody uses it."""
    others = {each["id"] for each in client.client_list() if int(each["id"]) != layer.client_id}
    (mine,) = others & {each["id"] for each in client.client_list() if each["cmd"] == "xread"}
    assert client.client_kill_filter(_id=mine) == 1


def test_a_connection_for_letters_that_was_cut_while_it_was_idle_is_made_anew_unheard(
    name: str, worker: Workers, client: Any
) -> None:
    layer = worker(name)
    post(client, layer, *LETTERS[:2])
    layer.mail(None)
    kill_mail(client, layer)
    post(client, layer, LETTERS[2])
    assert layer.mail(None) == (True, [LETTERS[2]])


def test_a_reply_whose_answer_a_cut_takes_is_sent_again(name: str, worker: Workers, client: Any) -> None:
    layer = worker(name)
    replies = layer.keys.replies(INTERFACE)
    client.xadd(replies, {"there": ""})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(layer.mail, replace(response(), more=True), 15)
        until(lambda: client.info("clients")["blocked_clients"], "a worker waits for a letter")
        kill_mail(client, layer)
        post(client, layer, LETTERS[0])
        assert waiting.result(60) == (True, [LETTERS[0]])
    assert client.xlen(replies) == 1 + 2


def test_a_handler_waits_for_a_redis_that_is_away_but_not_for_ever(
    name: str, worker: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, passed = worker(name), [0.0]
    monkeypatch.setattr(layer, "_url", "unix:///absent")
    monkeypatch.setattr(module, "monotonic", lambda: passed[0])
    monkeypatch.setattr(module, "sleep", lambda seconds: passed.append(passed.pop() + seconds))
    for use in (lambda: layer.mail(None), lambda: layer.send_now(Broadcast("g", "x"))):
        began = passed[0]
        with pytest.raises(ConnectionResetError, match="Redis was lost"):
            use()
        assert passed[0] - began == pytest.approx(module.AWAY_SECONDS, abs=1)
