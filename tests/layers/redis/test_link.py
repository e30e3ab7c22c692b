"""The link, through a proxy that freezes and stalls."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
import redis

from asgictl.layers.base import NotSent
from asgictl.layers.redis import link as module
from asgictl.layers.redis.link import ALWAYS, CUT, UNSENT, Call, Link, pack
from tests.conftest import scenario


def test_a_command_is_packed_as_redis_has_it() -> None:
    assert pack(("SET", b"k", 1)) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n"


@scenario
async def test_a_command_without_a_connection_fails_after_its_caller_has_gone_on() -> None:
    heard: list[object] = []
    Link("redis://h").call("PING", answered=heard.append)
    assert heard == []
    await asyncio.sleep(0)
    assert [type(reply) for reply in heard] == [NotSent]


@scenario
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"LOADING Redis is loading the dataset in memory", NotSent),
        (b"READONLY You can't write against a read only replica.", NotSent),
        (b"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't.", NotSent),
        (b"MISCONF Errors writing to the AOF file: No space left on device", NotSent),
        (b"MISCONF Errors writing to the AOF file: No space left script: 402e, on @user_script:1.", NotSent),
        (b"ERR Error running script (call to f_4): @user_script:1: @user_script: 1: -MISCONF Errors", NotSent),
        (b"NOREPLICAS Not enough good replicas to write.", NotSent),
        (b"CLUSTERDOWN The cluster is down", NotSent),
        (b"OOM command not allowed when used memory > 'maxmemory'.", hiredis.ReplyError),
    ],
)
async def test_what_a_redis_that_is_not_yet_itself_refuses_was_not_sent(answer: bytes, kind: type) -> None:
    """A call that does not say otherwise hears of it at once."""
    link, heard = Link("redis://h"), list[object]()
    stream: Any = SimpleNamespace(transport=SimpleNamespace(write=lambda _data: None))
    link._stream, link._loop = stream, asyncio.get_running_loop()
    for _ in range(2):
        link.call("PING", answered=heard.append)
    link._take(hiredis.ReplyError(answer.decode()))
    link._take(b"PONG")
    assert (type(heard[0]), str(heard[0])) == (kind, answer.decode())
    assert heard[1] == b"PONG"


class Proxy:
    """Stands before a Redis. freeze(): open connections say nothing more; new ones are served, unless `is_stalled`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: set[asyncio.Event] = set()
        self.is_stalled = asyncio.Event()
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def move(self, url: str) -> None:
        """Serve new connections by another Redis."""
        self._url = url

    def freeze(self) -> None:
        for each in self._open:
            each.set()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        frozen = asyncio.Event()
        self._open.add(frozen)
        there, back = await asyncio.open_unix_connection(self._url.removeprefix("unix://").partition("?")[0])
        self._writers += [writer, back]
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, target, frozen))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, frozen: asyncio.Event) -> None:
        while data := await source.read(1 << 16):
            while self.is_stalled.is_set():  # noqa: ASYNC110 - a switch
                await asyncio.sleep(0.01)
            if not frozen.is_set():
                target.write(data)
        target.close()


class Linked:
    """A link through a proxy to a real Redis, with short times."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch, probe_seconds: float = 30) -> None:
        for name, seconds in (("SILENT_SECONDS", 0.3), ("LOOK_SECONDS", 0.05), ("PROBE_SECONDS", probe_seconds)):
            monkeypatch.setattr(module, name, seconds)
        self.proxy = Proxy(url)
        self.heard: list[object] = []

    async def __aenter__(self) -> "Linked":
        self.link = Link(await self.proxy.start())
        await self.link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.stop()
        await self.proxy.stop()

    def call(self, *command: str | int, again: int) -> Call:
        return self.link.call(*command, answered=self.heard.append, again=again)

    async def hears(self, count: int) -> list[object]:
        async with asyncio.timeout(60):
            while len(self.heard) < count:  # noqa: ASYNC110 - what it waits for is no event
                await asyncio.sleep(0.01)
        return self.heard


@scenario
async def test_a_connection_that_is_silent_is_replaced_and_what_it_owed_is_sent_again_in_order(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Linked(url, monkeypatch) as linked:
        linked.proxy.freeze()
        for number in range(5):
            linked.call("RPUSH", name, number, again=ALWAYS)
        linked.call("RPUSH", name, "once", again=UNSENT)
        await asyncio.sleep(0)
        for number in range(5, 10):
            linked.call("RPUSH", name, number, again=ALWAYS)
        heard = await linked.hears(11)
        assert isinstance(heard[0], ConnectionError)
        assert not isinstance(heard[0], NotSent), "nobody knows"
        assert heard[1:] == list(range(1, 11))
        assert client.lrange(name, 0, -1) == [b"%d" % number for number in range(10)]
        assert linked.proxy.connections == 2


@scenario
async def test_a_connection_that_nobody_uses_is_replaced_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Linked(url, monkeypatch) as linked:
        linked.proxy.freeze()
        async with asyncio.timeout(60):
            while linked.proxy.connections == 1 or not linked.link.up:  # noqa: ASYNC110 - what it waits for is no event
                await asyncio.sleep(0.01)
        assert await linked.link.ask("ECHO", "a", again=ALWAYS) == b"a"


@pytest.mark.slow
@scenario
async def test_a_redis_that_stalls_keeps_its_connection(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent once is not lost, however long it takes."""
    async with Linked(url, monkeypatch, probe_seconds=0.3) as linked:
        linked.proxy.is_stalled.set()
        linked.call("RPUSH", name, "x", again=UNSENT)
        await asyncio.sleep(1.5)
        assert linked.heard == []
        linked.proxy.is_stalled.clear()
        assert await linked.hears(1) == [1]
        assert client.lrange(name, 0, -1) == [b"x"]


@pytest.mark.slow
@scenario
async def test_a_process_that_stood_still_reads_first_what_has_come(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Linked(url, monkeypatch) as linked:
        linked.call("RPUSH", name, "x", again=UNSENT)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(1)  # noqa: ASYNC251 - as SIGSTOP does
        assert await linked.hears(1) == [1]
        await asyncio.sleep(0.3)
        assert linked.proxy.connections == 1


@scenario
async def test_a_link_that_nobody_owes_anything_may_be_silent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Linked(url, monkeypatch) as linked:
        await asyncio.sleep(1)
        assert linked.proxy.connections == 1


@scenario
async def test_what_redis_refuses_for_now_is_sent_again_before_what_came_later(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Linked(url, monkeypatch) as linked:
        client.config_set("min-replicas-to-write", 1)
        try:
            linked.call("RPUSH", name, 0, again=UNSENT)
            linked.call("RPUSH", name, 1, again=ALWAYS)
            withdrawn = linked.call("RPUSH", name, "withdrawn", again=ALWAYS)
            await linked.link.ask("PING")
            linked.call("RPUSH", name, 2, again=ALWAYS)
            linked.call("RPUSH", name, 9, again=0)
            assert isinstance((await linked.hears(1))[0], NotSent)
            withdrawn.withdraw()
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert (await linked.hears(4))[1:] == [1, 2, 3]
        assert client.lrange(name, 0, -1) == [b"0", b"1", b"2"]


@scenario
async def test_a_full_redis_refuses_what_does_not_wait_and_takes_the_rest_later(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Linked(url, monkeypatch) as linked:
        client.config_set("maxmemory", 1)
        try:
            linked.call("RPUSH", name, 0, again=UNSENT | CUT)
            linked.call("RPUSH", name, 1, again=ALWAYS)
            assert str((await linked.hears(1))[0]).startswith("OOM")
        finally:
            client.config_set("maxmemory", 0)
        assert (await linked.hears(2))[1] == 1


@scenario
async def test_what_waits_is_bounded_and_what_is_left_at_the_end_is_told(
    url: str, client: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 100)
    async with Linked(url, monkeypatch, probe_seconds=0.3) as linked:
        linked.proxy.is_stalled.set()
        linked.call("SET", name, "x" * 40, again=ALWAYS)
        linked.call("SET", name, "y" * 40, again=ALWAYS)
        assert isinstance((await linked.hears(1))[0], NotSent)
        linked.proxy.is_stalled.clear()
        assert (await linked.hears(2))[1] == b"OK"
        linked.call("SET", name, "z" * 40, again=ALWAYS)
        assert (await linked.hears(3))[2] == b"OK", "there is room again"
        linked.proxy.is_stalled.set()
        linked.call("SET", name, "at the end", again=ALWAYS)
    assert isinstance(linked.heard[3], ConnectionError)


@scenario
async def test_a_callback_that_fails_costs_no_other_its_answer(url: str, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(url)
    await link.start()

    def fails(_reply: object) -> None:
        raise ValueError("abc is no id")

    link.call("PING", answered=fails)
    assert await link.ask("PING") == b"PONG"
    link.call("BLPOP", "nothing", 0, answered=fails)
    link.drop()
    assert await link.ask("PING", again=ALWAYS) == b"PONG"
    assert caplog.text.count("could not handle an answer of Redis") == 2
    await link.stop()


@scenario
async def test_a_setup_that_fails_is_tried_again(url: str) -> None:
    attempts: list[int] = []

    async def restored() -> None:
        attempts.append(len(attempts))
        if attempts[1:] and len(attempts) < 4:
            raise ValueError("abc is no id")

    link = Link(url, restored)
    await link.start()
    link.drop()
    assert await link.ask("PING", again=ALWAYS) == b"PONG"
    assert len(attempts) == 4
    await link.stop()


@scenario
async def test_a_master_that_is_one_no_more_is_left_for_the_one_that_has_its_name(
    url_of_valkey: str, url_of_redis: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a name in DNS, whose connections live on. What is refused, and sent once at most, is not lost."""
    with redis.Redis.from_url(url_of_redis) as old, redis.Redis.from_url(url_of_valkey) as new:
        async with Linked(url_of_redis, monkeypatch) as linked:
            old.replicaof("127.0.0.1", 1)
            try:
                linked.proxy.move(url_of_valkey)
                linked.call("RPUSH", name, 0, again=UNSENT)
                linked.call("RPUSH", name, 1, again=ALWAYS)
                assert await linked.hears(2) == [1, 2]
                assert linked.proxy.connections == 2
            finally:
                old.replicaof("NO", "ONE")
            assert new.lrange(name, 0, -1) == [b"0", b"1"]
