"""What tests on a real server share: each that is promised, from its wheel."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from asgictl.layers.base import Entry, Position
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.layers.redis.worker_side import RedisWorkerLayer
from asgictl.wire.messages import Broadcast, Done, Event, Frame, Receive, Reply, Request, Response, Scope
from tests.conftest import SERVERS
from tests.declared import witnessing

CHANNELS = ["http.request", "websocket.connect", "websocket.receive", "websocket.disconnect"]
INTERFACE = "host.1.aa"
names = (f"test{number}" for number in count())


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

    def __init__(self, url: str, name: str, id: str = INTERFACE) -> None:
        self.id = id
        self.forgotten = asyncio.Event()
        self.fenced = asyncio.Event()
        self.replies: asyncio.Queue[tuple[Reply, Position | None]] = asyncio.Queue()
        self.broadcasts: asyncio.Queue[tuple[Broadcast, Position]] = asyncio.Queue()
        self.layer = RedisEventLayer(
            url,
            name,
            id,
            lambda reply, position: self.replies.put_nowait((reply, position)),
            lambda broadcast, position: self.broadcasts.put_nowait((broadcast, position)),
            self.forgotten.set,
            lambda _identity: self.fenced.set(),
        )

    async def append(self, event: Event) -> None:
        """Add an event, and wait until it is there."""
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.layer.append(event.channel, event, answer.set_result, repeatable=True)
        assert isinstance(await answer, bytes)


@asynccontextmanager
async def serving(url: str, name: str, id: str = INTERFACE) -> AsyncIterator[Interface]:
    interface = Interface(url, name, id)
    await interface.layer.start()
    try:
        yield interface
    finally:
        await interface.layer.deregister()
        await interface.layer.stop()


def request(connection: str = "host.1.aa/1") -> Request:
    return Request(connection, 1, Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None), b"")


def response(connection: str = "host.1.aa/1", body: bytes = b"hello") -> Response:
    return Response(connection, 0, 200, [], body)


def receive(number: int, *frames: Frame, connection: str = "host.1.aa/1") -> Receive:
    return Receive(connection, number, 1, b"", b"", list(frames), 0)


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
    await asyncio.to_thread(layer.settle)


def kill(client: Any, layer: RedisWorkerLayer) -> None:
    assert client.client_kill_filter(_id=layer.client_id) == 1


@pytest.fixture(autouse=True)
def _declared(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does with a server: no script touches a key that it did not declare."""
    is_measured = "many" in request.fixturenames  # its memory: MONITOR would repeat all that is sent
    callspec = getattr(request.node, "callspec", None)
    if is_measured or callspec is None or callspec.params.get("url") not in SERVERS:
        yield
        return
    with witnessing(request.getfixturevalue("url")):
        yield


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
