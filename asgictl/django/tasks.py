"""A backend of django.tasks that runs tasks as background jobs.

A queue has three background channels, one for each band of priorities, and a worker reads the highest band first. A
task's job holds all that there is to know of it. The same, as a JobRecord, is its result: READY leaves with its job,
RUNNING at once, and what became of it with the commit of the job. So a task that runs twice has one result, and what
it sends leaves once.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from importlib import import_module
from traceback import format_exception
from typing import Any

import django
from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.module_loading import import_string

from asgictl.app import outcome, outside, runtime
from asgictl.app.application import declared
from asgictl.app.boundary import UserCode
from asgictl.app.message import BackgroundMessage, RetryLater
from asgictl.app.sending import CONTENT_BYTES, Channel, send
from asgictl.errors import ConsumerError, RedisError
from asgictl.wire.records import JobRecord, Stage, new_id
from asgictl.wire.state import decode_state

_HOME = "django.tasks" if django.VERSION >= (6,) else "django_tasks"  # the latter is the backport for older Django
tasks: Any = import_module(_HOME)
base, signals, exceptions, backends = (
    import_module(f"{_HOME}.{each}") for each in ("base", "signals", "exceptions", "backends.base")
)
normalize_json = base.normalize_json
Status = tasks.TaskResultStatus

RESULT_BYTES = 4 * CONTENT_BYTES  # more than a content, a return value and a traceback
TRACEBACK_BYTES = 64 << 10  # the end of it is kept
# A task that this release does not have may be one of a release that is being deployed.
UNKNOWN_SECONDS, UNKNOWN_ATTEMPTS = 5, 24
TIMES = ("enqueued_at", "started_at", "last_attempted_at", "finished_at")


_is_logged = ContextVar("asgictl_task_is_logged", default=False)
# A receiver of django.tasks would log once more, without TARGET, what UserCode has logged.
logging.getLogger(_HOME).addFilter(lambda record: record.levelno < logging.ERROR or not _is_logged.get())


class AsgictlBackend(backends.BaseTaskBackend):  # type: ignore[name-defined,misc]  # Django is untyped
    """TASKS = {"default": {"BACKEND": "asgictl.django.tasks.AsgictlBackend", "QUEUES": ["default"]}}."""

    supports_defer = supports_async_task = supports_get_result = supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if not self.queues:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: name its queues, for each has channels that workers serve")
        try:
            self.channels: list[Channel] = [
                Channel(f"tasks.{each}.{band}") for each in sorted(self.queues) for band in BANDS
            ]
        except ConsumerError as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from None

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue a task with the commit of the event being handled; outside of one, at once.

        Raises what Channel.send raises, and TypeError for arguments that are not JSON.
        """
        self.validate_task(task)
        delay_seconds = 0.0
        if task.run_after is not None:
            delay_seconds = max(0.0, (task.run_after - datetime.now(task.run_after.tzinfo)).total_seconds())
        result = tasks.TaskResult(
            task=task,
            id=new_id(delay_seconds),
            status=Status.READY,
            args=args,
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
            **dict.fromkeys(TIMES) | {"enqueued_at": timezone.now()},
        )
        channel = Channel(f"tasks.{task.queue_name}.{band_of(task.priority)}")
        channel.send(content_of(result), delay_seconds=delay_seconds)
        keep(result, Stage.READY)
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return a task's result as Redis has it now. Raises TaskResultDoesNotExist, and RedisError."""
        if (content := outside.record(str(result_id))) is None:
            raise exceptions.TaskResultDoesNotExist(result_id)
        return result_of(decode_state(content))

    def check(self, **_: Any) -> Iterator[CheckMessage]:
        """Demand the app, which declares the channels."""
        if not apps.is_installed("asgictl.django"):
            hint = 'Add "asgictl.django" to INSTALLED_APPS.'
            yield Error(f"No worker serves the queues of TASKS[{self.alias!r}].", hint, id="asgictl.E001")


BANDS = ("1-high", "2-normal", "3-low")  # in the order in which a worker reads them, that of their names


def band_of(priority: int) -> str:
    """Return the band of a priority: above 0, 0, or below."""
    return BANDS[1 - (priority > 0) + (priority < 0)]


def declare_channels() -> None:
    """Have every Application of this process serve the queues of the backends in TASKS that are ours."""
    for backend in tasks.task_backends.all():
        if isinstance(backend, AsgictlBackend):
            declared.update({channel.name: run for channel in backend.channels})


def run(message: BackgroundMessage) -> None:
    """Run a task, keep its result, and drop what it has sent if it failed."""
    try:
        result = result_of(message.content)
    except Exception:
        if message.attempt < UNKNOWN_ATTEMPTS:
            raise RetryLater(UNKNOWN_SECONDS) from None
        raise
    begin(result, message.attempt)
    sender, task = type(result.task.get_backend()), result.task
    with UserCode("task %s failed, result %s", task.module_path, result.id) as ended:
        signals.task_started.send_robust(sender, task_result=result)
        context = (tasks.TaskContext(task_result=result),) if task.takes_context else ()
        value = normalize_json(task.call(*context, *result.args, **result.kwargs))
        outcome.encoded("a task's return value", {"": value}, CONTENT_BYTES)
    if ended.error is None:
        change(result, status=Status.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
    else:
        if current := outcome.current():
            current.drop()
        change(result, status=Status.FAILED, finished_at=timezone.now())
        result.errors.append(task_error(ended.error))
    tell_finished(sender, result, ended.error)
    keep(result, Stage.FINISHED)


def tell_finished(sender: type, result: Any, error: BaseException | None) -> None:
    """Send the signal: of a task that has raised while its exception is handled, as backends of Django's do."""
    if error is None:
        signals.task_finished.send_robust(sender, task_result=result)
        return
    token = _is_logged.set(True)
    try:
        raise error
    except BaseException:  # noqa: BLE001 - whatever a task has raised
        signals.task_finished.send_robust(sender, task_result=result)
    finally:
        _is_logged.reset(token)


def begin(result: Any, attempt: int) -> None:
    """Note that a task runs, at once. While Redis is away it runs without."""
    with suppress(ConnectionError, RedisError):
        if attempt > 1 and (content := outside.record(result.id)):
            earlier = result_of(decode_state(content), result.task)
            change(result, started_at=earlier.started_at, worker_ids=earlier.worker_ids)
    now = timezone.now()
    change(result, status=Status.RUNNING, started_at=result.started_at or now, last_attempted_at=now)
    result.worker_ids.append(runtime.current().worker)
    with suppress(ConnectionError, RedisError):
        keep(result, Stage.RUNNING)


def change(result: Any, **values: Any) -> None:
    """Set fields of a result, which is frozen for all others."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def task_error(error: BaseException) -> Any:
    """Return an exception as a result holds it."""
    text = "".join(format_exception(error)).encode(errors="backslashreplace")[-TRACEBACK_BYTES:]
    kind = type(error)
    return base.TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=text.decode(errors="replace")
    )


def keep(result: Any, stage: Stage) -> None:
    """Keep a result: RUNNING at once, else with the commit of the event being handled."""
    content = outcome.encoded("a task's result", content_of(result), RESULT_BYTES)
    send(JobRecord(result.id, stage, content), immediately=stage is Stage.RUNNING)


def content_of(result: Any) -> dict[str, Any]:
    """Return a TaskResult as a job and a record hold it."""
    task = result.task
    return {
        "id": result.id,
        "task": task.module_path,
        "backend": task.backend,
        "queue_name": task.queue_name,
        "priority": task.priority,
        "run_after": task.run_after and task.run_after.isoformat(),
        "args": result.args,
        "kwargs": result.kwargs,
        "status": str(result.status),
        "worker_ids": result.worker_ids,
        "errors": [[each.exception_class_path, each.traceback] for each in result.errors],
        "return_value": result.return_value if result.status == Status.SUCCESSFUL else None,
        **{each: time and time.isoformat() for each in TIMES for time in [getattr(result, each)]},
    }


def result_of(content: dict[str, Any], task: Any = None) -> Any:
    """Return the TaskResult that content_of() was given. task: its own, where it is known."""
    if task is None:
        run_after = content["run_after"] and datetime.fromisoformat(content["run_after"])
        names = {name: content[name] for name in ("priority", "queue_name", "backend")}
        task = import_string(content["task"]).using(run_after=run_after, **names)
    result = tasks.TaskResult(
        task=task,
        id=content["id"],
        status=Status(content["status"]),
        args=content["args"],
        kwargs=content["kwargs"],
        backend=content["backend"],
        errors=[base.TaskError(exception_class_path=path, traceback=text) for path, text in content["errors"]],
        worker_ids=content["worker_ids"],
        **{each: content[each] and datetime.fromisoformat(content[each]) for each in TIMES},
    )
    change(result, _return_value=content["return_value"])
    return result
