"""The boundary around user code, in a thread and in a task."""

import asyncio
import subprocess
import sys
from contextvars import ContextVar, copy_context

import pytest

from asgictl.app import boundary
from asgictl.app.boundary import UserCode, in_its_own_task, is_cancelled
from tests.worker.conftest import scenario

ENDS = [ValueError, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, BaseException]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("is_cancellable", [False, True])
def test_whatever_is_raised_ends_there_and_is_told_once(
    how: type[BaseException], is_cancellable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = how("theirs")
    with UserCode("%s of %s failed", "connect", "/x", is_cancellable=is_cancellable) as ended:
        raise error
    assert ended.error is error
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info and record.exc_info[1]) == (
        "the application: connect of /x failed",
        error,
    )


def test_what_is_expected_ends_there_and_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with UserCode("failed", expected=OSError) as ended:
        raise ConnectionResetError
    assert isinstance(ended.error, ConnectionResetError)
    with UserCode("failed") as returned:
        pass
    assert (returned.error, caplog.records) == (None, [])


@scenario
async def test_the_cancellation_of_what_is_awaited_ends_there() -> None:
    awaited = asyncio.ensure_future(asyncio.sleep(9))
    awaited.cancel()
    with UserCode("failed", is_cancellable=True) as ended:
        await awaited
    assert isinstance(ended.error, asyncio.CancelledError)
    assert not is_cancelled(ended.error)


@pytest.mark.parametrize("is_cancellable", [False, True])
def test_the_task_s_own_cancellation_passes_where_somebody_else_may_cancel_it(is_cancellable: bool) -> None:
    @scenario
    async def run() -> None:
        code = UserCode("failed", is_cancellable=is_cancellable)

        async def waits() -> str:
            with code:
                await asyncio.sleep(9)
            return "goes on"

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is is_cancellable

    run()


@scenario
async def test_a_time_limit_within_is_a_timeout_error() -> None:
    with UserCode("failed", is_cancellable=True) as ended:
        async with asyncio.timeout(0):
            await asyncio.sleep(9)
    assert isinstance(ended.error, TimeoutError)


@scenario
async def test_what_cancels_itself_in_a_task_of_its_own_has_failed_and_ours_passes() -> None:
    async def cancels_itself() -> str:
        task = asyncio.current_task()
        assert task
        task.cancel()
        return "done"

    async def waits() -> str:
        await asyncio.sleep(9)
        return "done"

    assert await in_its_own_task(cancels_itself(), lambda: "failed") == "failed"
    outer = asyncio.ensure_future(in_its_own_task(waits(), lambda: "failed"))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer


def test_an_event_sees_what_the_module_of_target_has_set_and_nothing_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boundary, "_imported", boundary.fresh_context())  # restored after the test
    variable: ContextVar[str] = ContextVar("variable", default="")

    def imports() -> None:
        variable.set("imported")
        boundary.keep_context()

    async def sets() -> str:
        before = variable.get()
        variable.set("set by a task")
        return before

    copy_context().run(imports)
    for _ in range(2):
        context = boundary.fresh_context()
        assert context.run(variable.get) == "imported"
        context.run(variable.set, "set by an event")
        assert asyncio.run(in_its_own_task(sets(), str)) == "imported"


CACHES = """
from concurrent.futures import ThreadPoolExecutor
from asgictl.app.boundary import thread_context
from django.conf import settings
from django.core.cache import caches

thread_context()  # Django is not configured yet
settings.configure(CACHES={
    "wrong": {"BACKEND": "nowhere.Cache"},
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
})

def events():
    context = thread_context()
    first, second = (context.copy().run(lambda: caches["default"]) for _ in range(2))
    assert first is second
    return first

with ThreadPoolExecutor(1) as other:
    assert events() is not other.submit(events).result()
"""


def test_events_of_one_thread_share_django_s_caches() -> None:
    subprocess.run([sys.executable, "-c", CACHES], check=True)
