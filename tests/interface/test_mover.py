"""Sockets that move between interfaces: all ends on a real Redis, in one process, over real connections."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from asgictl.config import Bind, InterfaceConfig
from asgictl.interface import giver
from asgictl.interface.mover import Mover
from asgictl.layers.redis.keys import Keys, sockets_of
from asgictl.layers.redis.leases import member, reap
from asgictl.layers.redis.worker_side import RedisWorkerLayer
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.manifest import Path as Route
from asgictl.wire.messages import SERVICE_RESTART, VERSION, Accept, Connect, Disconnect, Done, Receive, encode
from tests.conftest import scenario
from tests.interface.edges import HANDSHAKE, Server, masked
from tests.layers.conftest import CHANNELS

TEXT, CLOSE = 0x81, 0x88
numbers = count()
clients: "list[Client]" = []
ALIAS = "7"  # a process id under which the new process is known to the old one: they have the same


class Told(Readiness):
    """A Readiness without a controller. ids: what was claimed last."""

    ids: object = None

    def amend(self, **detail: object) -> None:
        self.ids = detail["ids"]


class Process:
    """An interface. directory: its own run directory, as all have one process id here."""

    def __init__(self, url: str, name: str, directory: Path, server: str = "uvicorn") -> None:
        directory.mkdir()
        self.directory = directory
        self.readiness = Told(directory, "interface", "interface")
        self.mover = Mover(InterfaceConfig(name, url, Bind("fd://0"), server=server), self.readiness)
        self.forwarder, self.layer = self.mover.forwarder, self.mover._layer
        backend: Any = self.forwarder
        self.server = Server(backend)
        self.identity = sockets_of(self.forwarder.id)

    def listen(self) -> None:
        self.mover.listen(self.server.edge, self.server.config, self.server.state)

    def name_successor(self, other: "Process") -> None:
        (self.directory / f"handover-{ALIAS}.sock").symlink_to(other.directory / f"handover-{os.getpid()}.sock")
        (self.directory / f"successor-{os.getpid()}").write_text(ALIAS)

    async def connect(self) -> "Client":
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(self.server.protocol, ours)
        client = Client(*await asyncio.open_connection(sock=theirs))
        client.writer.write(HANDSHAKE)
        assert b" 101 " in await client.reader.readuntil(b"\r\n\r\n")
        return client


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        clients.append(self)

    def says(self, text: str) -> None:
        self.writer.write(masked(TEXT, text.encode()))

    async def hears(self) -> str:
        first, length = await self.reader.readexactly(2)
        payload = await self.reader.readexactly(length)
        return str(int.from_bytes(payload[:2])) if first == CLOSE else payload.decode()

    async def echoes(self, text: str) -> None:
        self.says(text)
        assert await self.hears() == text


class Echo(threading.Thread):
    """A worker that accepts all and echoes. holds: while it is set, turns wait. gone: connections that were left."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        self.layer = RedisWorkerLayer(url, name, "w1", CHANNELS)
        self.layer.connect()
        manifest = Manifest(VERSION, "r1", False, [Route("/ws", True, True, True)], {})
        self.layer._ask("SET", self.layer.keys.manifest, encode_manifest(manifest))
        self.goes_on, self.stopping = threading.Event(), threading.Event()
        self.goes_on.set()
        self.gone: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            for entry in self.layer.read(16):
                self.goes_on.wait()
                event = entry.event
                assert isinstance(event, Connect | Receive | Disconnect)
                frames = event.frames if isinstance(event, Receive) else []
                accept = Accept(None, []) if isinstance(event, Connect) else None
                done = Done(event.connection, event.number, list(frames), b"", accept, None, [], [])
                if isinstance(event, Disconnect):
                    self.gone.append(event.connection)
                    self.layer.commit(entry, done, [])
                else:
                    last_will = Disconnect(event.connection, 0, 1, event.scope, b"", 1012, "")
                    self.layer.commit(entry, done, [], encode(last_will)[1])
            self.layer.flush()
        self.layer.close()


@pytest.fixture
def instance() -> str:
    """An instance's name that no other test has."""
    clients.clear()
    return f"moves{next(numbers)}"


@pytest.fixture
def echo(url_of_valkey: str, instance: str) -> Iterator[Echo]:
    made = Echo(url_of_valkey, instance)
    made.start()
    yield made
    made.goes_on.set()
    made.stopping.set()
    made.join()


@asynccontextmanager
async def serving(url: str, name: str, directory: Path, **settings: Any) -> AsyncIterator[Process]:
    process = Process(url, name, directory, **settings)
    process.listen()
    await process.forwarder.start()
    await until(lambda: process.layer.manifest)
    try:
        yield process
    finally:
        for client in clients:
            client.writer.close()
        process.mover.close()
        for each in process.mover._givers.values():
            each._line.close()
        await process.forwarder.drain()
        await until(lambda: not process.server.state.connections)
        for client in clients:
            with suppress(OSError):
                await client.writer.wait_closed()
        await asyncio.sleep(0.02)  # so long that the servers' transports have closed


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.005)


@scenario
async def test_sockets_move_under_traffic_and_end_once(
    url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path
) -> None:
    url = url_of_valkey
    async with serving(url, instance, tmp_path / "old") as old, serving(url, instance, tmp_path / "new") as new:
        old.name_successor(new)
        many = [await old.connect() for _ in range(100)]

        async def counts(client: Client) -> None:
            for number in range(30):
                await client.echoes(f"{number}")

        counting = [asyncio.create_task(counts(client)) for client in many]
        await asyncio.sleep(0.05)
        await old.mover.give()
        await asyncio.gather(*counting)
        assert (old.forwarder.figures.moved, old.forwarder.figures.refused) == (100, 0)
        assert old.forwarder.sockets == {}
        assert len(new.forwarder.sockets) == 100
        assert old.readiness.ids == [old.forwarder.id]
        assert new.readiness.ids == [new.forwarder.id, new.identity, old.identity]
        late = await old.connect()  # over a connection that was kept alive, say
        await late.echoes("x")
        late.writer.close()
        for client in many:
            client.writer.close()
        await until(lambda: len(echo.gone) == 101)
        assert len(set(echo.gone)) == 101
        await until(lambda: new.readiness.ids == [new.forwarder.id, new.identity])
        keys = Keys(instance)
        with redis.Redis.from_url(url) as look:
            await until(lambda: not look.exists(*keys.of_interface(old.identity)))
            await until(lambda: look.zscore(keys.alive, member("interface", old.identity)) is None)


@scenario
async def test_an_identity_is_passed_on(url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path) -> None:
    url = url_of_valkey
    async with (
        serving(url, instance, tmp_path / "one") as one,
        serving(url, instance, tmp_path / "two") as two,
        serving(url, instance, tmp_path / "three") as three,
    ):
        client = await one.connect()
        one.name_successor(two)
        two.name_successor(three)
        await one.mover.give()
        other = await two.connect()
        await client.echoes("a")
        await two.mover.give()
        assert len(three.forwarder.sockets) == 2
        for each in (client, other):
            await each.echoes("b")
            each.writer.close()
        await until(lambda: len(echo.gone) == 2)


@scenario
async def test_a_socket_that_is_busy_for_too_long_stays_and_is_told_of(
    url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of_valkey
    async with serving(url, instance, tmp_path / "old") as old, serving(url, instance, tmp_path / "new") as new:
        old.name_successor(new)
        busy, idle = await old.connect(), await old.connect()
        echo.goes_on.clear()
        busy.says("1")
        await until(lambda: old.forwarder._in_flight._in_flight)
        giving = asyncio.create_task(old.mover.give())
        await until(lambda: old.forwarder.figures.moved == 1)
        figures = old.forwarder.figures
        await until(lambda: figures.waiting == 1)
        assert figures.until > 0
        monkeypatch.setattr(giver, "HANDOVER_SECONDS", 0.5)
        await giving
        assert (figures.overdue, figures.waiting, figures.until) == (1, 0, 0)
        echo.goes_on.set()
        assert await busy.hears() == "1"
        await busy.echoes("2")
        await idle.echoes("3")
        assert (len(old.forwarder.sockets), len(new.forwarder.sockets)) == (1, 1)
        busy.writer.close()
        await until(lambda: new.readiness.ids == [new.forwarder.id, new.identity, old.identity])
        assert old.layer.identities == (old.forwarder.id,)
        idle.writer.close()
        await until(lambda: len(echo.gone) == 2)


@scenario
async def test_what_the_new_process_has_no_room_for_stays(
    url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path
) -> None:
    url = url_of_valkey
    async with serving(url, instance, tmp_path / "old") as old, serving(url, instance, tmp_path / "new") as new:
        new.server.edge.capacity = 0
        old.name_successor(new)
        client = await old.connect()
        await old.mover.give()
        assert (old.forwarder.figures.moved, old.forwarder.figures.refused) == (0, 1)
        await client.echoes("x")
        assert new.forwarder.sockets == {}
        client.writer.close()
        await until(lambda: len(echo.gone) == 1)


@pytest.mark.parametrize("named", ["none", "nonsense", "nobody"])
@scenario
async def test_without_a_successor_that_answers_nothing_changes(
    url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path, named: str
) -> None:
    async with serving(url_of_valkey, instance, tmp_path / "old") as old:
        if named != "none":
            (old.directory / f"successor-{os.getpid()}").write_text("x" if named == "nonsense" else ALIAS)
        client = await old.connect()
        await old.mover.give()
        await client.echoes("x")
        client.writer.close()
        await until(lambda: len(echo.gone) == 1)


@scenario
async def test_sockets_of_an_identity_that_others_have_reaped_close_and_the_rest_goes_on(
    url_of_valkey: str, instance: str, echo: Echo, tmp_path: Path
) -> None:
    url = url_of_valkey
    async with serving(url, instance, tmp_path / "old") as old, serving(url, instance, tmp_path / "new") as new:
        old.name_successor(new)
        taken, own = await old.connect(), await new.connect()
        await old.mover.give()
        await taken.echoes("x")
        with redis.Redis.from_url(url) as client:
            reap(client, Keys(instance), member("interface", old.identity), seen=True)
        assert await taken.hears() == str(SERVICE_RESTART)
        await own.echoes("y")
        await until(lambda: len(echo.gone) == 1)
        assert new.readiness.ids == [new.forwarder.id, new.identity]
        own.writer.close()
        await until(lambda: len(echo.gone) == 2)


def test_other_servers_take_no_part(url_of_valkey: str, instance: str, tmp_path: Path) -> None:
    process = Process(url_of_valkey, instance, tmp_path / "old", server="hypercorn")
    process.listen()
    assert list(process.directory.iterdir()) == []
