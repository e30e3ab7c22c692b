"""One background job being run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgictl.app.application import Application, BackgroundConsumer
from asgictl.app.message import BackgroundMessage, RetryLater
from asgictl.app.run import RunningJob
from asgictl.app.sending import Channel, Group
from asgictl.errors import ConsumerError, WireError
from asgictl.wire.messages import Broadcast, Job, Sent
from asgictl.wire.state import encode_state

CONTENT = {"id": 5, "data": b"\xff", "nested": [None, {"x": 1.5}]}


def job(attempt: int = 1, delay_milliseconds: int = 0) -> Job:
    return Job("job.a", attempt, "thumbs", encode_state(CONTENT), delay_milliseconds)


def ran(consumer: BackgroundConsumer, event: Job | None = None) -> list[Sent]:
    """Run a job to its end; returns what leaves with its commit."""
    running = RunningJob(Application(background={"thumbs": consumer}), event or job())
    if running.is_async:
        asyncio.run(running.run_async())
    else:
        running.run()
    assert running.last_will() == b""
    return list(running.outcome.sends)


def awaited(consumer: Callable[[BackgroundMessage], None]) -> BackgroundConsumer:
    """Return the same as an `async def`."""

    async def consume(message: BackgroundMessage) -> None:
        await asyncio.sleep(0)
        consumer(message)

    return consume


def as_is(consumer: BackgroundConsumer) -> BackgroundConsumer:
    return consumer


both = pytest.mark.parametrize("kind", [as_is, awaited])


@both
def test_a_consumer_is_called_with_what_was_sent_and_what_it_sends_waits_for_the_commit(kind: Any) -> None:
    seen: list[object] = []

    def consume(message: BackgroundMessage) -> None:
        seen.append((message.content, message.channel, message.id, message.attempt))
        Group("g").send(text="made")
        Channel("thumbs").send({"next": 1}, delay_seconds=1.0001)

    sends = ran(kind(consume), job(attempt=2))
    assert seen == [(CONTENT, "thumbs", "job.a", 2)]
    assert sends[0] == Broadcast("g", "made")
    assert isinstance(sends[1], Job)
    assert (sends[1].name, sends[1].attempt, sends[1].delay_milliseconds) == ("thumbs", 1, 1001)
    assert sends[1].id != "job.a"


@both
def test_an_exception_is_logged_once_and_nothing_leaves(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_message: BackgroundMessage) -> None:
        Group("g").send(text="half")
        raise ValueError("theirs")

    assert ran(kind(fail)) == []
    assert [record.getMessage() for record in caplog.records] == [
        "the application: background.thumbs failed with message job.a"
    ]
    assert "theirs" in caplog.text


@both
def test_one_that_asks_is_called_later_with_the_same_message_and_nothing_else_leaves(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(_message: BackgroundMessage) -> None:
        Group("g").send(text="half")
        raise RetryLater(0.5)

    assert ran(kind(ask), job(attempt=3, delay_milliseconds=9)) == [job(attempt=4, delay_milliseconds=500)]
    assert caplog.records == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "soon", None])
def test_later_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ConsumerError, match="number of seconds"):
        RetryLater(seconds)


def test_bytes_that_are_no_content_are_a_wire_error() -> None:
    application = Application(background={"thumbs": lambda message: None})
    with pytest.raises(WireError):
        RunningJob(application, Job("job.a", 1, "thumbs", b"\xc1"))
