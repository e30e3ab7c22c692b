"""The controller, in this process, on a socket in a directory of the test's."""

import asyncio
import json
import os
import queue
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgictl.controller import Controller, ask_status
from asgictl.errors import StartError
from asgictl.readiness import SOCKET
from asgictl.started import Started


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long; a relative one always fits
    return Path()


@asynccontextmanager
async def running(redis_url: str | None) -> AsyncIterator[Path]:
    serving = asyncio.create_task(Controller(Path(), redis_url, "test").serve())
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # what it does last; before, SIGTERM would end pytest
        assert not serving.done(), serving.result()
        await asyncio.sleep(0)
    try:
        yield Path()
    finally:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 10)


async def reporting(**report: object) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_unix_connection(SOCKET)
    writer.write(json.dumps({"role": "worker", "process": "worker-00", **report}).encode() + b"\n")
    return writer


NOTHING: dict[str, object] = {"ready": [], "failed": [], "shed": {}}
Status = dict[str, list[dict[str, Any]]]


async def status_when(condition: Callable[[Status], object]) -> Status:
    async with asyncio.timeout(10):
        while True:
            status = await ask_status(Path())
            if condition(status):
                return status


def run(scenario: Callable[[], Awaitable[None]], redis_url: str | None = None) -> None:
    async def main() -> None:
        async with running(redis_url):
            await scenario()

    asyncio.run(main())


def test_a_process_is_ready_for_as_long_as_its_line_is_open() -> None:
    async def scenario() -> None:
        assert await ask_status(Path()) == NOTHING
        line = await reporting(pid=7, state="ready", threads=2)
        status = await status_when(lambda status: status["ready"])
        assert status["ready"][0]["threads"] == 2
        line.close()
        await status_when(lambda status: not status["ready"])

    run(scenario)


def test_last_words_outlive_a_process_until_its_successor_is_ready() -> None:
    async def scenario() -> None:
        (await reporting(pid=7, state="failed", reason="no module", exit_code=3)).close()
        status = await status_when(lambda status: status["failed"])
        assert status["failed"][0]["reason"] == "no module"
        line = await reporting(pid=8, state="ready")
        status = await status_when(lambda status: status["ready"])
        assert status["failed"] == []
        line.close()

    run(scenario)


def test_a_process_that_dies_while_it_starts_has_failed_without_words() -> None:
    async def scenario() -> None:
        (await reporting(pid=7, state="starting")).close()
        status = await status_when(lambda status: status["failed"])
        assert (status["failed"][0]["reason"], status["failed"][0]["exit_code"]) == ("", StartError.exit_code)

    run(scenario)


def test_a_process_that_said_why_it_failed_is_quoted() -> None:
    async def scenario() -> None:
        line = await reporting(pid=7, state="starting")
        line.write(b'{"role": "worker", "process": "worker-00", "pid": 7, "state": "failed", "reason": "x"}\n')
        line.close()
        status = await status_when(lambda status: status["failed"])
        assert [failure["reason"] for failure in status["failed"]] == ["x"]

    run(scenario)


@pytest.mark.parametrize(
    "line", [b"hello", b"{}", b"[]", b"1", b'{"pid": 1}', b'{"pid": [], "state": "ready", "process": "x"}']
)
def test_a_stranger_is_cut_off_and_the_controller_goes_on(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        reader, writer = await asyncio.open_unix_connection(SOCKET)
        writer.write(line + b"\n")
        assert await reader.read() == b""
        writer.close()
        assert await ask_status(Path()) == NOTHING

    run(scenario)
    assert [record.name for record in caplog.records] == ["asgictl.controller"]


def test_a_whole_traceback_fits_into_a_report() -> None:
    async def scenario() -> None:
        line = await reporting(pid=7, state="failed", reason="x" * 500_000, exit_code=3)
        status = await status_when(lambda status: status["failed"])
        assert len(status["failed"][0]["reason"]) == 500_000
        line.close()

    run(scenario)


def test_the_socket_is_its_owners_alone_and_replaces_a_killed_controllers() -> None:
    Path(SOCKET).write_text("left behind")

    async def scenario() -> None:
        assert os.stat(SOCKET).st_mode == stat.S_IFSOCK | 0o600

    run(scenario)


def test_asking_a_controller_that_is_away_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(ask_status(Path()))


def test_a_dead_worker_is_reaped_with_what_it_had_started(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: queue.SimpleQueue[tuple[str, bool, tuple[str, ...]]] = queue.SimpleQueue()
    monkeypatch.setattr(
        "asgictl.controller.reap", lambda client, keys, dead, *, seen, started: heard.put((dead, seen, started))
    )
    Started(Path("started-7"), 0).note(b"ch", b"1-0")

    async def scenario() -> None:
        (await reporting(pid=7, state="ready", id="h.7.aa")).close()
        assert await asyncio.to_thread(heard.get, timeout=10) == ("worker/h.7.aa", True, ("ch 1-0",))
        (await reporting(pid=8, state="ready", role="interface", id="h.8.aa")).close()
        assert await asyncio.to_thread(heard.get, timeout=10) == ("interface/h.8.aa", True, ("?",))

    run(scenario, "redis://127.0.0.1:1")
    assert not Path("started-7").exists()


def test_what_a_dead_worker_held_waits_while_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    controller = Controller(Path(), f"unix://{tmp_path}/absent", "test")
    controller._reap({"role": "worker", "process": "worker-00", "pid": 7, "id": "h.7.aa"})
    assert "what worker-00 held waits for its lease to lapse" in caplog.text


def test_a_controller_that_ends_takes_nobody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[object] = []
    monkeypatch.setattr(Controller, "_died", lambda _self, report: died.append(report))

    async def scenario() -> None:
        line.connect(SOCKET)
        line.sendall(b'{"role": "worker", "process": "worker-00", "pid": 7, "state": "ready", "id": "h.7.aa"}\n')
        await status_when(lambda status: status["ready"])

    with socket.socket(socket.AF_UNIX) as line:
        run(scenario)
    assert died == []
