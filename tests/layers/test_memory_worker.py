"""A thread that waits for an event in memory; the contract of layers has the rest."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from asgictl.layers import memory_worker as module
from asgictl.layers.memory import Memory
from asgictl.layers.memory_worker import MemoryWorkerLayer
from tests.conftest import until
from tests.layers.conftest import receive


def test_an_event_ends_the_read_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 30.0)
    memory = Memory()
    worker = MemoryWorkerLayer(memory, "w.0", ["websocket.receive"])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(worker.read, 1)
        until(lambda: memory.waiting, "a worker waits for an event")
        memory.add(b"websocket.receive", receive(1, "x"))
        assert [entry.event for entry in waiting.result(60)] == [receive(1, "x")]
