"""The channel layer of a single process."""

import asyncio

from asgictl.layers.base import Position, process_id
from asgictl.layers.memory import MemoryGroupLayer
from asgictl.messages import Broadcast


def test_broadcasts_arrive_in_order_after_their_sender_has_gone_on() -> None:
    async def run() -> None:
        heard: list[tuple[Broadcast, Position]] = []
        layer = MemoryGroupLayer(lambda broadcast, position: heard.append((broadcast, position)))
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

    asyncio.run(run())


def test_no_process_id_is_used_twice_or_splits_a_connections_id() -> None:
    ids = {process_id() for _ in range(100)}
    assert len(ids) == 100
    assert not any("/" in each for each in ids)
