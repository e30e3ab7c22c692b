"""The channel layer of a single process: what is its own; test_contract.py has the rest."""

import asyncio

from asgictl.layers.base import Position, ignored, process_id
from asgictl.layers.memory import Memory, MemoryEventLayer
from asgictl.wire.messages import Broadcast
from tests.conftest import scenario


@scenario
async def test_broadcasts_arrive_in_order_after_their_sender_has_gone_on() -> None:
    heard: list[tuple[Broadcast, Position]] = []
    layer = MemoryEventLayer(Memory(), "i", ignored, lambda broadcast, position: heard.append((broadcast, position)))
    await layer.start()
    for frame in ("a", "b", "c"):
        layer.publish(Broadcast("g", frame))
    assert heard == []
    await asyncio.sleep(0)
    assert [broadcast.frame for broadcast, _ in heard] == ["a", "b", "c"]
    positions = [position for _, position in heard]
    assert positions == sorted(set(positions))
    assert positions[0] > (0, 0)
    await layer.stop()


@scenario
async def test_who_has_stopped_hears_nothing_more_and_is_let_go_of() -> None:
    memory, heard = Memory(), list[Broadcast]()
    layer = MemoryEventLayer(memory, "i", ignored, lambda broadcast, position: heard.append(broadcast))
    await layer.start()
    for _ in range(2):
        await layer.stop()
    memory.send(Broadcast("g", "x"))
    await asyncio.sleep(0)
    assert heard == []
    assert memory.listeners == []


def test_an_event_loop_that_was_closed_without_a_stop_disturbs_nobody() -> None:
    memory = Memory()
    asyncio.run(MemoryEventLayer(memory, "i", lambda reply, position: None, lambda broadcast, position: None).start())
    memory.send(Broadcast("g", "x"))


def test_no_process_id_is_used_twice_or_splits_a_connections_id() -> None:
    ids = {process_id() for _ in range(100)}
    assert len(ids) == 100
    assert not any("/" in each for each in ids)
