"""A worker's side of the channel layer, on a real server."""

import asyncio
from typing import Any

import pytest

from asgictl.layers.keys import WORKERS, Keys
from asgictl.messages import VERSION, Broadcast, Connect, Disconnect, Response, encode
from tests.layers.conftest import (
    CHANNELS,
    Workers,
    committed,
    done,
    kill,
    read_some,
    receive,
    request,
    response,
    run,
    serving,
    taken,
)


def test_an_event_is_read_committed_and_its_reply_reaches_the_interface(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(request())
            entry = await taken(layer)
            assert entry.event == request()
            await committed(layer, entry, response())
            assert await interface.replies.get() == (response(), None)
            assert layer.refused == 0
        stream = Keys(name).channel("http.request")
        assert (client.xlen(stream), client.xpending(stream, WORKERS)["pending"]) == (0, 0)

    run(scenario)


def test_events_that_were_added_before_the_first_worker_came_are_read(url: str, name: str, worker: Workers) -> None:
    async def scenario() -> None:
        async with serving(url, name) as interface:
            for number in range(3):
                await interface.append(request(f"host.1.aa/{number}"))
            events = [entry.event.connection for entry in await asyncio.to_thread(read_some, worker(name))]
            assert events == ["host.1.aa/0", "host.1.aa/1", "host.1.aa/2"]

    run(scenario)


def test_a_commit_of_an_entry_that_was_committed_already_is_refused(url: str, name: str, worker: Workers) -> None:
    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(receive(1, "x"))
            entry = await taken(layer)
            await committed(layer, entry, done(1, "first"), [Broadcast("g", "first")])
            await committed(layer, entry, done(1, "second"), [Broadcast("g", "second")])
            await interface.append(receive(2, "x"))
            await committed(layer, await taken(layer), done(2, "third"), [Broadcast("g", "third")])
            assert [(await interface.replies.get())[0] for _ in range(2)] == [done(1, "first"), done(2, "third")]
            assert [(await interface.broadcasts.get())[0].frame for _ in range(2)] == ["first", "third"]
            assert layer.refused == 1

    run(scenario)


@pytest.mark.parametrize("again", [1, 2])
def test_a_turn_that_is_not_newer_is_refused_and_its_event_gone(
    again: int, url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            for number in (2, again, 3):
                await interface.append(receive(number, "x"))
                await committed(layer, await taken(layer), done(number), [Broadcast("g", f"{number}")])
            assert layer.refused == 1
            assert [(await interface.replies.get())[0] for _ in range(2)] == [done(2), done(3)]
            assert client.xlen(Keys(name).channel("websocket.receive")) == 0
            assert client.xlen(Keys(name).broadcast) == 2

    run(scenario)


def test_the_last_turn_leaves_nothing_of_its_connection(url: str, name: str, worker: Workers, client: Any) -> None:
    async def scenario() -> None:
        layer = worker(name)
        turns = Keys(name).turns("host.1.aa/1")
        async with serving(url, name) as interface:
            await interface.append(Connect("host.1.aa/1", 1, 1, b"", b""))
            await committed(layer, await taken(layer), done(1))
            assert client.hgetall(turns) == {b"host.1.aa/1": b"1"}
            await interface.append(Disconnect("host.1.aa/1", 2, 1, b"", b"", 1000, ""))
            await committed(layer, await taken(layer), done(2))
            assert client.exists(turns) == 0

    run(scenario)


def test_a_commit_for_an_interface_that_has_gone_is_refused_and_creates_no_stream(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
        layer, keys = worker(name), Keys(name)
        async with serving(url, name) as interface:
            await interface.append(receive(1, "x"))
            entry = await taken(layer)
        await committed(layer, entry, done(1), [Broadcast("g", "x")])
        assert layer.refused == 1
        left = {key.decode() for key in client.keys(f"*{{{name}}}*")}
        assert left == {keys.channels, keys.epoch, keys.clock, *(keys.channel(channel) for channel in CHANNELS)}

    run(scenario)


def test_parts_of_a_response_come_before_its_last_and_in_order(url: str, name: str, worker: Workers) -> None:
    async def scenario() -> None:
        layer = worker(name)
        parts = [Response("host.1.aa/1", number, 200, [], b"x", number < 3) for number in range(4)]
        async with serving(url, name) as interface:
            await interface.append(request())
            entry = await taken(layer)
            for part in parts[:3]:
                await asyncio.to_thread(layer.send_part, part)
            assert [(await interface.replies.get())[0] for _ in range(3)] == parts[:3]
            await committed(layer, entry, parts[3])
            assert (await interface.replies.get())[0] == parts[3]

    run(scenario)


def test_an_event_of_an_unknown_version_is_passed_over_and_acknowledged(
    url: str, name: str, worker: Workers, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        layer = worker(name)
        stream = Keys(name).channel("http.request")
        client.xadd(stream, {"9": encode(request())[1]})
        client.xadd(stream, {f"{VERSION}": b"garbage"})
        async with serving(url, name) as interface:
            await interface.append(request())
            assert (await taken(layer)).event == request()
            await asyncio.to_thread(layer.flush)
            await asyncio.to_thread(layer._drain)
            assert client.xpending(stream, WORKERS)["pending"] == client.xlen(stream) == 1
        assert sum("passed over" in message for message in caplog.messages) == 2

    run(scenario)


def test_a_worker_reads_its_own_pending_entries_again_after_its_connection_was_killed(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
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

    run(scenario)


def test_a_commit_that_was_buffered_when_the_connection_was_killed_is_applied(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
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

    run(scenario)


def test_a_commit_whose_sending_failed_is_sent_again(url: str, name: str, worker: Workers, client: Any) -> None:
    """flush() meets the broken connection first, as after a slow handler; the next reads must make up for it."""

    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(request())
            entry = await taken(layer)
            kill(client, layer)
            layer.commit(entry, response(), [])
            layer.flush()
            assert [await asyncio.to_thread(layer.read, 1) for _ in range(2)] == [[], []], "it need not run again"
            assert (await interface.replies.get())[0] == response()

    run(scenario)


def test_a_commit_sent_twice_is_applied_once(url: str, name: str, worker: Workers, client: Any) -> None:
    async def scenario() -> None:
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

    run(scenario)


def test_a_worker_that_closes_sends_what_it_has_and_leaves_the_cursors(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(request())
            layer.commit(await taken(layer), response(), [])
            layer.close()
            assert (await interface.replies.get())[0] == response()
        assert client.xinfo_consumers(Keys(name).channel("http.request"), WORKERS) == []

    run(scenario)
    worker.made.clear()
