"""Both sides of the split, joined by the memory layer: no server, no sockets, no Redis, one process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any

import pytest

from asgictl.app.application import Application, manifest_of, path
from asgictl.app.message import Message
from asgictl.app.sending import Group
from asgictl.config import Bind, InterfaceConfig
from asgictl.interface.edge_asgi import ASGIEdge
from asgictl.interface.forwarder import Forwarder
from asgictl.layers import memory_worker as module
from asgictl.layers.memory import Memory, MemoryEventLayer
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.layers.redis.started import Started
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.messages import WINDOW_BYTES
from asgictl.worker.loop import Loop
from asgictl.worker.process import channels_of
from tests.conftest import scenario
from tests.worker.conftest import NoASGI

ASGIMessage = MutableMapping[str, Any]
CONFIG = InterfaceConfig("test", "no Redis", Bind("127.0.0.1:8000"))
LEFT: SimpleQueue[tuple[int | None, str]] = SimpleQueue()  # whom the disconnect consumer saw: close code and name
COPIES = 3 * WINDOW_BYTES // (200 << 10)


def view(environ: Any, start_response: Any) -> Any:
    """Answer with the body that came, many times over when it is large."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "text/plain")])
    return iter([body] * COPIES) if len(body) > 1000 else [environ["REQUEST_METHOD"].encode() + b" " + body]


def join(message: Message) -> None:
    message.accept()
    message.join("room")
    message.state["name"] = message.query_string.decode()


def say(message: Message) -> None:
    message.reply(text=f"you said {message.text}")
    Group("room").send(text=f"{message.state['name']}: {message.text}")


def leave(message: Message) -> None:
    LEFT.put((message.code, message.state["name"]))


APPLICATION = Application(http=view, websocket=[path("/ws", connect=join, receive=say, disconnect=leave)])


class NoAsyncTurns:
    def holds(self, entry: object) -> bool:
        return False


class Client:
    """One connection to the interface, as a server would hold it."""

    def __init__(self, forwarder: Forwarder, scope: dict[str, Any]) -> None:
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.sent: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.running = asyncio.ensure_future(ASGIEdge(forwarder)(scope, self.incoming.get, self.sent.put))

    def says(self, kind: str, **more: Any) -> None:
        self.incoming.put_nowait({"type": kind, **more})

    async def hears(self, kind: str) -> ASGIMessage:
        message = await self.sent.get()
        assert message["type"] == kind
        return message

    async def texts(self, count: int) -> list[str]:
        return [(await self.hears("websocket.send"))["text"] for _ in range(count)]


class Split:
    """An interface, and the memory that workers share with it."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.stopping = threading.Event()
        self.forwarder = Forwarder(
            *(CONFIG, Readiness(None, "interface", "interface")),
            lambda _url, _name, *rest, **_hooks: MemoryEventLayer(self.memory, *rest),
        )
        self.layer = MemoryWorkerLayer(self.memory, "worker.0", channels_of(APPLICATION, "test"))
        self.layer.publish_manifest(manifest_of(APPLICATION, "1"))
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Start a worker."""
        async_turns: Any = NoAsyncTurns()
        asgi: Any = NoASGI()
        loop = Loop(APPLICATION, self.layer, self.stopping, async_turns, asgi, Started(None, 0))
        self._threads.append(threading.Thread(target=loop.run))
        self._threads[-1].start()

    async def end(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def requests(self, method: str, body: bytes = b"") -> Client:
        headers = [(b"content-length", b"%d" % len(body))] if body else []
        client = Client(self.forwarder, {"type": "http", "method": method, "path": "/", "headers": headers})
        client.says("http.request", body=body, more_body=False)
        return client

    async def connects(self, name: str) -> Client:
        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": name.encode()}
        client = Client(self.forwarder, scope)
        client.says("websocket.connect")
        await client.hears("websocket.accept")
        return client


@asynccontextmanager
async def serving() -> AsyncIterator[Split]:
    split = Split()
    lifespan = Client(split.forwarder, {"type": "lifespan"})
    lifespan.says("lifespan.startup")
    await lifespan.hears("lifespan.startup.complete")
    try:
        yield split
    finally:
        lifespan.says("lifespan.shutdown")
        await lifespan.hears("lifespan.shutdown.complete")
        await split.end()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)  # how long a loop takes to stop
    yield
    assert LEFT.empty()


@scenario
async def test_a_request_is_answered() -> None:
    async with serving() as split:
        split.begin()
        client = split.requests("PUT", b"hello")
        assert (await client.hears("http.response.start"))["status"] == 200
        body = {"type": "http.response.body", "body": b"PUT hello", "more_body": False}
        assert await client.hears("http.response.body") == body
        await client.running


@scenario
async def test_large_bodies_go_both_ways_under_credit() -> None:
    body = b"0123456789" * (20 << 10)
    async with serving() as split:
        split.begin()
        client = split.requests("POST", body)
        await client.hears("http.response.start")
        parts = [await client.hears("http.response.body")]
        while parts[-1].get("more_body"):
            parts.append(await client.hears("http.response.body"))
        assert b"".join(part["body"] for part in parts) == body * COPIES
        await client.running


@scenario
async def test_the_frames_of_a_socket_are_answered_in_order_and_its_group_hears_them() -> None:
    async with serving() as split:
        split.begin()
        ann, bob = await split.connects("ann"), await split.connects("bob")
        for number in range(50):
            ann.says("websocket.receive", text=f"{number}")
        heard = await ann.texts(100)
        assert [text for text in heard if text.startswith("you")] == [f"you said {number}" for number in range(50)]
        said = [f"ann: {number}" for number in range(50)]
        assert [text for text in heard if text.startswith("ann")] == said
        assert await bob.texts(50) == said
        for client in (ann, bob):
            client.says("websocket.disconnect", code=1001)
            await client.running
    assert [LEFT.get(timeout=0) for _ in range(2)] == [(1001, "ann"), (1001, "bob")]


@scenario
async def test_what_a_worker_died_of_is_run_by_another() -> None:
    async with serving() as split:
        dying = MemoryWorkerLayer(split.memory, "dying.0", ["http.request", "websocket.connect"])
        client = split.requests("GET")
        connecting = asyncio.create_task(split.connects("ann"))
        held = 0
        while held < 2:
            held += len(await asyncio.to_thread(dying.read, 1))
        split.begin()
        assert split.memory.release("dying") == 2
        assert (await client.hears("http.response.start"))["status"] == 200
        ann = await connecting
        ann.says("websocket.disconnect", code=1001)
        await ann.running
    assert LEFT.get(timeout=0) == (1001, "ann")


@scenario
async def test_the_sockets_of_a_dead_interface_are_told_to_the_application_once() -> None:
    async with serving() as split:
        split.begin()
        ann = await split.connects("ann")
        assert [split.memory.reap_interface(split.forwarder.id) for _ in range(2)] == [0, 0]
        assert await asyncio.to_thread(LEFT.get, timeout=10) == (1006, "ann")
        ann.running.cancel()
        split.forwarder.sockets.clear()  # the dead wait for no last turns
