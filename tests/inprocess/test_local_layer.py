"""The layer of a server that runs the application: the contract of layers, what runs where, what is sent by what."""

import asyncio
import threading
from typing import Any

import pytest

from asgictl.app.application import Application, path
from asgictl.app.message import Message
from asgictl.inprocess.local_layer import LocalLayer, LocalMemory
from asgictl.layers.base import EventLayer, OnBroadcast, OnReply, Position
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.layers.redis.started import Begun
from asgictl.telemetry.metrics import Figures
from asgictl.wire.messages import Broadcast, Receive, Reply, Scope, Sent, encode_scope
from tests.conftest import scenario
from tests.layers.conftest import done
from tests.layers.test_contract import Contract, Layers, MemoryLayers

SCOPE = encode_scope(Scope("", "ws", "1.1", "", "/ws", b"/ws", b"", [], None, None))


async def here(message: Message) -> None:
    message.reply(text=threading.current_thread().name)


APPLICATION = Application(websocket=[path("/ws", receive=here)])


class LocalLayers(MemoryLayers):
    def __init__(self) -> None:
        self.memory = LocalMemory()

    def make_interface(self, id: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> EventLayer:
        assert isinstance(self.memory, LocalMemory)
        return LocalLayer(Application(), self.memory, None, Begun(None), Figures(), id, on_reply, on_broadcast)


class TestLocal(Contract):
    # Nothing is lost without this process.
    test_an_audit_misses_what_is_neither_in_its_channel_nor_answered: Any = None

    @pytest.fixture
    def layers(self) -> Layers:
        return LocalLayers()


class Shared:
    """Stands for the layer that other processes hear."""

    silent_seconds = 1.5

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.is_started = False

    async def start(self) -> None:
        self.is_started = True

    async def stop(self) -> None:
        self.is_started = False

    def publish(self, sent: Sent) -> None:
        self.sent.append(sent)


class Local:
    """A layer, and what was heard of it."""

    def __init__(self, application: Application = APPLICATION, shared: Any = None) -> None:
        self.memory, self.figures = LocalMemory(), Figures()
        self.heard: asyncio.Queue[tuple[Reply, Position | None]] = asyncio.Queue()
        self.broadcasts: list[Broadcast] = []
        self.layer = LocalLayer(
            *(application, self.memory, shared, Begun(None), self.figures, "i"),
            lambda reply, position: self.heard.put_nowait((reply, position)),
            lambda broadcast, _position: self.broadcasts.append(broadcast),
        )


def turn(number: int = 1) -> Receive:
    return Receive("i/1", number, 1, SCOPE, b"", ["x"], 1)


@scenario
async def test_a_turn_of_an_async_consumer_runs_on_the_loop_and_stands_in_no_stream() -> None:
    local, answers = Local(), list[object]()
    await local.layer.start()
    local.layer.append("websocket.receive", turn(), answers.append, repeatable=True)
    reply: Any = (await local.heard.get())[0]
    assert (reply.number, reply.frames) == (1, ["MainThread"])
    assert (local.figures.events, local.figures.errors) == (1, 0)
    assert local.memory.depth(b"websocket.receive") == 0
    assert answers == [], "nobody else can have it"
    await local.layer.stop()


@scenario
async def test_what_is_sent_goes_to_all_processes_where_there_are_others() -> None:
    shared = Shared()
    local = Local(shared=shared)
    await local.layer.start()
    assert shared.is_started
    assert local.layer.silent_seconds == 1.5
    await asyncio.to_thread(local.memory.send, Broadcast("g", "x"))
    await asyncio.sleep(0)
    assert shared.sent == [Broadcast("g", "x")]
    assert local.broadcasts == [], "it is heard of the shared layer"
    await local.layer.stop()
    assert not shared.is_started


@scenario
async def test_an_event_waits_for_a_thread_that_is_awake_and_wakes_another_when_none_takes_it() -> None:
    local = Local(Application())
    await local.layer.start()
    local.memory.threads = 2
    workers = [MemoryWorkerLayer(local.memory, f"w.{number}", ["websocket.receive"], 30) for number in range(2)]
    asleep = asyncio.ensure_future(asyncio.to_thread(workers[0].read, 1))  # the other one is awake, and takes nothing
    async with asyncio.timeout(60):
        while not local.memory.waiting:  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)
    local.layer.append("websocket.receive", turn(), lambda _answer: None, repeatable=True)
    assert local.memory.waiting, "nobody is woken at once"
    (entry,) = await asyncio.wait_for(asleep, 60)
    workers[0].commit(entry, done(1, connection="i/1"), [])
    assert (await local.heard.get())[0] == done(1, connection="i/1")
    await local.layer.stop()
