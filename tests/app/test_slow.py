"""Events that take longer than they should, in this process."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator

import pytest

from asgictl.app import boundary
from asgictl.app.boundary import UserCode
from asgictl.app.slow import FRAMES, Watch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """One that samples when it is called."""
    made = Watch()
    made.seconds = 0.01
    monkeypatch.setattr(boundary, "watch", made)
    yield made
    assert not made._running


def compute(watch: Watch, depth: int = 0) -> None:
    if depth:
        return compute(watch, depth - 1)
    time.sleep(0.02)
    looking = threading.Thread(target=watch.sample)
    looking.start()
    return looking.join()


def test_a_slow_event_is_logged_once_with_wait_run_and_where_it_was(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    came = int((time.time() - 3) * 1000)
    with UserCode("%s %s failed", "GET", "/a", entry=b"%d-0" % came):
        compute(watch)
        compute(watch)
    (message,) = caplog.messages
    assert re.search(r"slow: GET /a waited [3-9]\.\d+ s and ran \d+\.\d+ s", message)
    assert "in compute" in message


@pytest.mark.parametrize("entry", [b"", b"0-7"])
def test_in_memory_nobody_knows_how_long_an_event_has_waited(
    watch: Watch, entry: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with UserCode("%s failed with message %s", "background.thumbs", "7", entry=entry):
        compute(watch)
    assert re.search(r"slow: background\.thumbs ran \d+\.\d+ s", caplog.text)


def test_what_is_fast_or_no_event_or_has_answered_is_not_logged(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with UserCode("GET /fast failed", entry=b""):
        watch.sample()
    with UserCode("lifespan failed"):
        compute(watch)
    with UserCode("GET /stream failed", entry=b"") as code:
        code.has_answered()
        compute(watch)
    watch.seconds = 0
    with UserCode("GET /unwatched failed", entry=b""):
        compute(watch)
    assert caplog.messages == []


def test_of_a_deep_stack_the_innermost_frames_are_kept(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with UserCode("GET /deep failed", entry=b""):
        compute(watch, 100)
    assert 1 < caplog.messages[0].count('  File "') <= FRAMES


async def waits(was_seen: threading.Event) -> None:
    while not was_seen.is_set():  # noqa: ASYNC110 - what is seen is that it sleeps
        await asyncio.sleep(0.05)


def test_a_coroutine_that_waits_is_shown_down_to_what_it_waits_for(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    was_seen = threading.Event()

    async def main() -> None:
        async def handler() -> None:
            with UserCode("GET /waits failed", entry=b""):
                await waits(was_seen)

        task = asyncio.create_task(handler())
        await asyncio.sleep(0.02)
        await asyncio.to_thread(watch.sample)
        was_seen.set()
        await task

    asyncio.run(main())
    assert [f"in {name}\n" in caplog.text for name in ("handler", "waits", "sleep")] == [True, True, True]


def test_a_coroutine_that_keeps_the_loop_is_shown_where_it_is(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with UserCode("GET /blocks failed", entry=b""):
            compute(watch)

    asyncio.run(main())
    assert "in compute\n" in caplog.text


def test_a_thread_samples_by_itself(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    made = Watch()
    monkeypatch.setattr(boundary, "watch", made)
    made.start(0.01)
    with UserCode("GET /a failed", entry=b""):
        deadline = time.monotonic() + 60
        while not any(running.stack for running in made._running.values()) and time.monotonic() < deadline:
            time.sleep(0.001)
    assert "slow: GET /a ran" in caplog.text
