"""The backend of django.tasks, with a worker's threads and a Redis; in a process of its own (test_tasks.py).

The cases are those of Django's tests/tasks, and what only a queue has.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import django
import pytest
from django.conf import settings

BACKEND = "asgictl.django.tasks.AsgictlBackend"
IS_NATIVE = django.VERSION >= (6,)
settings.configure(
    INSTALLED_APPS=["asgictl.django", *([] if IS_NATIVE else ["django_tasks"])],
    TASKS={"default": {"BACKEND": BACKEND, "QUEUES": ["default", "other"]}, "second": {"BACKEND": BACKEND}},
    USE_TZ=True,
    DATABASES={},
)
django.setup()

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from asgictl.app.application import Application  # noqa: E402
from asgictl.app.message import BackgroundMessage, RetryLater  # noqa: E402
from asgictl.app.outcome import Outcome  # noqa: E402
from asgictl.app.outside import Sender  # noqa: E402
from asgictl.config import WorkerConfig  # noqa: E402
from asgictl.django import tasks as ours  # noqa: E402
from asgictl.errors import ConsumerError, RedisError, UnknownChannel  # noqa: E402
from asgictl.testing import Instance  # noqa: E402
from asgictl.wire.messages import Job  # noqa: E402
from asgictl.wire.records import JobRecord, Stage  # noqa: E402
from asgictl.wire.state import encode_state  # noqa: E402
from asgictl.worker.process import Worker  # noqa: E402
from tests.conftest import redis_server, until  # noqa: E402
from tests.django import samples  # noqa: E402

exceptions: Any = ours.exceptions
InvalidTask = exceptions.InvalidTask if IS_NATIVE else exceptions.InvalidTaskError
Status: Any = ours.Status


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[Worker]:
    with redis_server("valkey-8") as url:
        os.environ |= {"ASGICTL_REDIS": url, "ASGICTL_NAME": "suite"}
        stopping = threading.Event()
        made = Worker(Application(), WorkerConfig("suite", url, "suite:app"), "w", stopping)
        made.start()
        thread = threading.Thread(target=made.run)
        thread.start()
        yield made
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()


def finished(result: Any) -> Any:
    """Return a result once its task has finished."""

    def is_finished() -> bool:
        result.refresh()
        return bool(result.is_finished)

    until(is_finished, f"{result.task.name} finishes")
    return result


def test_a_task_runs_and_its_result_is_kept() -> None:
    before = timezone.now()
    result = samples.add.enqueue(1, b=2)
    assert (result.status, result.args, result.kwargs, result.attempts) == (Status.READY, [1], {"b": 2}, 0)
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    finished(result)
    assert (result.status, result.return_value, result.errors) == (Status.SUCCESSFUL, 3, [])
    assert before <= result.enqueued_at <= result.started_at <= result.finished_at <= timezone.now()
    assert result.last_attempted_at == result.started_at
    assert result.worker_ids == ["python"], "where it ran: asgictl's name of this process"
    again = samples.add.get_result(result.id)
    assert (again, again.return_value) == (result, 3)


def test_awaited() -> None:
    async def main() -> Any:
        result = await samples.add_later.aenqueue(1, 2)
        while not result.is_finished:
            await asyncio.sleep(0.02)
            await result.arefresh()
        return await samples.add_later.aget_result(result.id)

    assert asyncio.run(asyncio.wait_for(main(), 60)).return_value == 3


def test_arguments_and_values_are_those_of_json() -> None:
    result = finished(samples.echo.enqueue((1, 2), {"a": None}, x="é", y=1.5))
    assert result.return_value == {"args": [[1, 2], {"a": None}], "kwargs": {"x": "é", "y": 1.5}}
    assert finished(samples.return_value.enqueue("tuple")).return_value == [1, 2]
    for argument in (object(), {1}, time):
        with pytest.raises(TypeError):
            samples.echo.enqueue(argument)
    for argument in ("x" * (1 << 20), 1 << 70, "\ud800"):
        with pytest.raises(ConsumerError):
            samples.echo.enqueue(argument)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("value", "ValueError", "theirs"),
        ("exit", "SystemExit", "3"),
        ("interrupt", "KeyboardInterrupt", ""),
        ("long", "ValueError", "x" * 100 + "the end"),
        ("surrogate", "ValueError", "\\ud800"),
        ("unspeakable", "Unspeakable", "exception str() failed"),
    ],
)
def test_whatever_a_task_raises_is_its_result(
    kind: str, name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = finished(samples.fail.enqueue(kind))
    assert result.status == Status.FAILED
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value
    (error,) = result.errors
    assert error.exception_class.__name__ == name
    assert said in error.traceback
    assert len(error.traceback) <= ours.TRACEBACK_BYTES
    assert caplog.text.count(f"task tests.django.samples.fail failed, result {result.id}") == 1


@pytest.mark.parametrize("kind", ["set", "large", "int"])
def test_a_value_that_cannot_be_kept_fails_its_task(kind: str) -> None:
    assert finished(samples.return_value.enqueue(kind)).status == Status.FAILED


def test_a_task_is_given_its_context() -> None:
    result = finished(samples.tell.enqueue(7))
    assert result.return_value == [1, result.id, "RUNNING", 7]


def test_what_a_handler_enqueues_leaves_with_its_commit() -> None:
    outcome = Outcome()
    with outcome:
        result = samples.add.enqueue(1)
        delayed = samples.add.using(run_after=timezone.now() + timedelta(seconds=60)).enqueue(1)
    job, record, later, _ = outcome.sends
    assert isinstance(job, Job)
    assert isinstance(record, JobRecord)
    assert isinstance(later, Job)
    assert (record.id, record.stage) == (result.id, Stage.READY)
    assert (job.delay_milliseconds, later.name) == (0, "tasks.default.2-normal")
    assert 59_000 < later.delay_milliseconds <= 60_000
    for each in (result, delayed):
        with pytest.raises(exceptions.TaskResultDoesNotExist):
            each.refresh()


def test_what_a_failed_task_has_enqueued_does_not_run() -> None:
    outcome = Outcome(now=lambda _sent: None)
    with outcome:
        samples.enqueue_and_fail.enqueue()
        job = outcome.sends[0]
        assert isinstance(job, Job)
        outcome.drop()
        ours.run(BackgroundMessage(job))
    (record,) = outcome.sends
    assert isinstance(record, JobRecord)
    assert record.stage is Stage.FINISHED


def test_a_delayed_task_waits_until_its_time() -> None:
    due = timezone.now() + timedelta(seconds=0.5)
    result = samples.add.using(run_after=due).enqueue(1)
    assert samples.add.get_result(result.id).task.run_after == due
    assert finished(result).started_at >= due
    past = samples.add.using(run_after=timezone.now() - timedelta(days=1)).enqueue(1)
    assert finished(past).return_value == 1


def test_without_time_zones_a_time_is_local() -> None:
    with override_settings(USE_TZ=False):
        due = datetime.now() + timedelta(seconds=0.3)
        result = finished(samples.add.using(run_after=due).enqueue(1))
        assert result.started_at.tzinfo is None
        assert result.started_at >= due


def test_priorities_are_bands_of_which_a_worker_reads_the_highest_first(worker: Worker) -> None:
    names = [each for each in worker.channels if each.startswith("background.tasks.default.")]
    assert names == [f"background.tasks.default.{band}" for band in ours.BANDS]
    for priority, band in ((100, "1-high"), (1, "1-high"), (0, "2-normal"), (-1, "3-low"), (-100, "3-low")):
        outcome = Outcome()
        with outcome:
            samples.add.using(priority=priority).enqueue(1)
        job = outcome.sends[0]
        assert isinstance(job, Job)
        assert job.name == f"tasks.default.{band}"
    result = finished(samples.add.using(priority=5, queue_name="other").enqueue(1))
    assert (result.task.priority, result.task.queue_name) == (5, "other")


def test_what_is_no_task_is_refused() -> None:
    for priority in (101, -101, 1.5):
        with pytest.raises(InvalidTask):
            samples.add.using(priority=priority)
    with pytest.raises(InvalidTask):
        samples.add.using(run_after=datetime.now())
    with pytest.raises(InvalidTask):
        samples.add.using(queue_name="nobody's")
    with pytest.raises(InvalidTask):
        ours.tasks.task(lambda: None)
    with pytest.raises(ConsumerError):
        samples.add.using(run_after=timezone.now() + timedelta(days=400)).enqueue(1)


def test_a_result_that_is_not_there() -> None:
    mine = finished(samples.add.enqueue(1))
    for id in ("", "x", "9" * 32, mine.id[:-1] + ("0" if mine.id[-1] != "0" else "1")):
        with pytest.raises(exceptions.TaskResultDoesNotExist):
            samples.add.get_result(id)
    with pytest.raises(exceptions.TaskResultMismatch):
        samples.echo.get_result(mine.id)


def test_another_alias_runs_the_same_task() -> None:
    result = finished(samples.add.using(backend="second").enqueue(1))
    assert (result.backend, result.task.backend, result.return_value) == ("second", "second", 1)


def test_a_second_attempt_counts_the_first(worker: Worker) -> None:
    """Its worker has died: the record says RUNNING, and the job comes again."""
    outcome = Outcome()
    with outcome:
        result = samples.tell.enqueue()
    job, record = outcome.sends
    assert isinstance(job, Job)
    sender = Sender.of_environment()
    sender.send(record)
    ours.change(result, status=Status.RUNNING, started_at=timezone.now())
    result.worker_ids.append("dead")
    ours.keep(result, Stage.RUNNING)
    began = result.started_at
    sender.send(Job(job.id, 2, job.name, job.content))
    finished(result)
    assert (result.attempts, result.worker_ids) == (2, ["dead", "python"])
    assert (result.started_at, result.last_attempted_at > began) == (began, True)
    assert result.return_value[0] == 2


def test_a_task_that_this_release_does_not_have_is_tried_again_for_a_while() -> None:
    result = samples.add.enqueue(1)
    unknown = encode_state({**ours.content_of(finished(result)), "task": "tests.django.samples.new"})
    with pytest.raises(RetryLater):
        ours.run(BackgroundMessage(Job("j", 1, "tasks.default.2-normal", unknown)))
    with pytest.raises(ImportError):
        ours.run(BackgroundMessage(Job("j", ours.UNKNOWN_ATTEMPTS, "tasks.default.2-normal", unknown)))


def test_a_finished_result_does_not_change() -> None:
    result = finished(samples.add.enqueue(1))
    ours.change(result, status=Status.RUNNING)
    ours.keep(result, Stage.RUNNING)
    ours.keep(result, Stage.READY)
    assert samples.add.get_result(result.id).status == Status.SUCCESSFUL


def test_while_redis_is_away_a_task_runs_all_the_same() -> None:
    def away(_sent: object) -> None:
        raise ConnectionResetError("away")

    outcome = Outcome(now=away)
    with outcome:
        samples.add.enqueue(1)
        job = outcome.sends[0]
        assert isinstance(job, Job)
        ours.run(BackgroundMessage(job))
    record = outcome.sends[-1]
    assert isinstance(record, JobRecord)
    assert record.stage is Stage.FINISHED


def test_signals_are_sent_and_a_receiver_that_raises_fails_nothing() -> None:
    heard = []

    def hear(task_result: Any, **_: Any) -> None:
        heard.append((task_result.id, str(task_result.status)))
        if task_result.status != Status.READY:
            raise ValueError("theirs")

    each = (ours.signals.task_enqueued, ours.signals.task_started, ours.signals.task_finished)
    for signal in each:
        signal.connect(hear)
    result = finished(samples.add.enqueue(1))
    for signal in each:
        signal.disconnect(hear)
    assert sorted(heard) == [(result.id, status) for status in ("READY", "RUNNING", "SUCCESSFUL")]


@pytest.mark.parametrize("queues", [[], ["a b"], ["x" * 100]])
def test_queues_are_named_as_channels_are(queues: list[str]) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"TASKS\['mine'\]"):
        ours.AsgictlBackend("mine", {"QUEUES": queues})


def test_the_app_is_demanded_since_it_declares_the_channels() -> None:
    backend = ours.tasks.task_backends["default"]
    assert list(backend.check()) == []
    with override_settings(INSTALLED_APPS=[]):
        assert [each.id for each in backend.check()] == ["asgictl.E001"]


def test_a_queue_that_no_application_serves_is_refused() -> None:
    outcome = Outcome(depths=Application(background={"x": lambda _message: None}).depths)
    assert outcome.depths is not None
    outcome.depths.pop("tasks.default.2-normal")
    with outcome, pytest.raises(UnknownChannel):
        samples.add.enqueue(1)


def test_in_the_memory_of_a_test_results_are_there() -> None:
    with Instance(Application()) as instance:
        result, wrong = samples.tell.enqueue(7), samples.fail.enqueue("value")
        assert samples.tell.get_result(result.id).status == Status.READY
        instance.kill_worker()
        instance.run()
        result.refresh()
        wrong.refresh()
        assert (result.return_value, result.attempts) == ([2, result.id, "RUNNING", 7], 2)
        assert (wrong.status, wrong.errors[0].exception_class) == (Status.FAILED, ValueError)
        ours.keep(ours.result_of(ours.content_of(wrong)), Stage.READY)  # an earlier stage, which comes late
        assert samples.fail.get_result(wrong.id).status == Status.FAILED
        instance.lose_layer()
        with pytest.raises(RedisError, match="the layer is lost"):
            result.refresh()
        instance.restore_layer(is_empty=True)
        with pytest.raises(exceptions.TaskResultDoesNotExist):
            result.refresh()


def test_a_task_that_raises_is_logged_once_and_receivers_have_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def hear(**_: Any) -> None:
        seen.append(sys.exception())

    ours.signals.task_finished.connect(hear)
    try:
        with Instance(Application()) as instance, caplog.at_level(logging.INFO):
            samples.fail.enqueue("value")
            samples.fail.enqueue("exit")
            samples.add.enqueue(1)
            instance.run()
    finally:
        ours.signals.task_finished.disconnect(hear)
    assert [type(each) for each in seen] == [ValueError, SystemExit, type(None)]
    errors = [each.name for each in caplog.records if each.levelno >= logging.ERROR]
    assert errors == ["asgictl.application"] * 2
    assert caplog.text.count("state=SUCCESSFUL") == 1
