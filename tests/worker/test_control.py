"""The worker's beat, with and without Redis."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgictl.configuration import WorkerConfig
from asgictl.layers.leases import Beat
from asgictl.worker.control import FENCED_STATUS, Control


class Exited(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(WorkerConfig("test", f"unix://{tmp_path}/absent", "t", 1), "h.1.aa", [], threading.Event())
    yield made
    made._client.close()


@pytest.fixture
def reaped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What the process has given back; should it end, that raises Exited."""
    heard: list[tuple[str, bool]] = []

    def end(status: int) -> None:
        raise Exited(status)

    monkeypatch.setattr("asgictl.worker.control.reap", lambda _client, _keys, dead, seen: heard.append((dead, seen)))
    monkeypatch.setattr(os, "_exit", end)
    return heard


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Beat) -> list[bytes]:
    """Have Redis give these answers; returns the epochs that beats tell it."""
    waiting, epochs = iter(answers), []

    def beat(_client: Any, _keys: Any, role: str, id: str, epoch: bytes) -> Beat:
        assert (role, id) == ("worker", "h.1.aa")
        epochs.append(epoch)
        return next(waiting)

    monkeypatch.setattr("asgictl.worker.control.beat", beat)
    return epochs


def test_a_beat_tells_the_epoch_that_the_one_before_was_told(
    control: Control, reaped: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = answering(monkeypatch, Beat(b"e1", False, []), Beat(b"e2", False, []), Beat(b"e2", False, []))
    for _ in range(3):
        control.beat()
    assert epochs == [b"", b"e1", b"e2"]
    assert reaped == []


def test_a_fenced_worker_gives_back_what_it_holds_and_ends(
    control: Control, reaped: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Beat(b"e1", True, []))
    with pytest.raises(Exited, match=str(FENCED_STATUS)):
        control.beat()
    assert reaped == [("worker/h.1.aa", True)]


def test_a_lost_redis_is_logged_and_nothing_more(
    control: Control, reaped: list[tuple[str, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    control.beat()
    control.thread.start()
    control._stopping.set()
    control.finish()
    assert [message.partition(":")[0] for message in caplog.messages if "reads" not in message] == [
        "no beat",
        "left Redis without a goodbye",
    ]
    assert reaped == []
