"""A worker's threads on a real Redis, from the first to the last."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asgictl.app.application import Application
from asgictl.app.message import BackgroundMessage
from asgictl.app.outside import Sender
from asgictl.config import WorkerConfig
from asgictl.errors import RedisError
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.messages import Job
from asgictl.wire.state import encode_state
from asgictl.worker import process
from asgictl.worker.process import Worker, serve
from tests.conftest import until

READINESS = Readiness(None, "worker", "worker")
done: list[int] = []


def consume(message: BackgroundMessage) -> None:
    done.append(message.content["n"])
    if message.content["n"] < 0:
        raise ValueError("as it is meant to")


application = Application(background={"numbers": consume})


@pytest.fixture(autouse=True)
def _clean(client: Any) -> Iterator[None]:
    done.clear()
    yield
    client.flushall()


def send(url: str, *numbers: int) -> None:
    for number in numbers:
        Sender(url, "shop").send(Job(f"job.{number}", 1, "numbers", encode_state({"n": number})))


def test_every_thread_works_until_the_worker_is_told_to_stop(url: str) -> None:
    stopping = threading.Event()
    worker = Worker(application, WorkerConfig("shop", url, "shop:app", threads=2), "w", stopping)
    worker.start()
    running = threading.Thread(target=worker.run)
    running.start()
    send(url, *range(10), -1)
    until(lambda: worker.figures().events == 11, "eleven events")
    stopping.set()
    running.join(60)
    assert not running.is_alive()
    assert sorted(done) == [-1, *range(10)], "an exception ends its job alone"
    assert worker.figures().running == 0
    assert worker.figures().busy_seconds > 0
    assert [each.name for each in threading.enumerate() if each.name == "worker"] == []


def test_a_worker_without_a_redis_says_so() -> None:
    worker = Worker(application, WorkerConfig("shop", "unix:///nowhere", "shop:app"), "w", threading.Event())
    with pytest.raises(RedisError):
        worker.start()


def test_a_process_serves_its_target(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until what SIGTERM sets is set; then its children end."""

    def stop_after_one(hear: Callable[[int], None], *_signals: int) -> None:
        def stop() -> None:
            until(lambda: done, "one job")
            hear(signal.SIGTERM)

        threading.Thread(target=stop).start()

    monkeypatch.setattr(process, "on_signal", stop_after_one)
    monkeypatch.setattr(process, "end_children", lambda: done.append(99))
    send(url, 5)
    serve(WorkerConfig("shop", url, f"{__name__}:application"), READINESS)
    assert done == [5, 99]
