"""The controller, in this process, on a socket in a directory of the test's."""

import asyncio
import json
import os
import queue
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from asgictl.control.channel_depths import Channel
from asgictl.control.controller import Controller
from asgictl.errors import StartError
from asgictl.layers.redis.started import Started
from asgictl.telemetry.controller_client import SOCKET, ask
from asgictl.telemetry.metrics import Figures


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long; a relative one always fits
    return Path()


controllers: list[Controller] = []


def running_controller() -> Controller:
    return controllers[-1]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(redis_url: str | None, **options: Any) -> AsyncIterator[Path]:
    controllers.append(Controller(Path(), redis_url, "test", **options))
    serving = asyncio.create_task(controllers[-1].serve())
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # what it does last; before, SIGTERM would end pytest
        assert not serving.done(), serving.result()
        await asyncio.sleep(0)
    try:
        yield Path()
    finally:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 60)


async def reporting(**report: object) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_unix_connection(SOCKET)
    writer.write(json.dumps({"role": "worker", "process": "worker-00", "pid": 1, **report}).encode() + b"\n")
    return writer


NOTHING: dict[str, object] = {"ready": [], "failed": [], "moves": {}}
Status = dict[str, list[dict[str, Any]]]


async def reports() -> Status:
    found: Status = await asyncio.to_thread(ask, Path(), "reports")
    return found


async def status_when(condition: Callable[[Status], object]) -> Status:
    async with asyncio.timeout(60):
        while True:
            status = await reports()
            if condition(status):
                return status


def run(scenario: Callable[[], Awaitable[None]], redis_url: str | None = None, **options: Any) -> None:
    async def main() -> None:
        async with running(redis_url, **options):
            await scenario()

    asyncio.run(main())


def test_a_process_is_ready_for_as_long_as_its_line_is_open() -> None:
    async def scenario() -> None:
        assert await reports() == NOTHING
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
        assert await reports() == NOTHING

    run(scenario)
    own = [record for record in caplog.records if " died" not in record.getMessage()]  # the deaths of tests before
    assert [record.name for record in own] == ["asgictl.controller"]


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
        ask(Path(), "reports")


async def pushing(**report: object) -> asyncio.StreamWriter:
    line = await reporting(state="ready", **report)
    line.write(b'{"figures": {"events": 7, "rejections": {"late": 2}}}\n')
    return line


def test_what_a_process_counts_is_known_for_as_long_as_it_lives() -> None:
    async def scenario() -> None:
        controller = running_controller()
        line = await pushing(pid=7)
        await until(lambda: 7 in controller.history.latest())
        assert controller.history.summary()["rejections"] == {"late": 2}
        line.close()
        await until(lambda: 7 not in controller.history.latest())

    run(scenario)


@pytest.mark.parametrize("figures", [b'{"events": "x"}', b"7", b'{"request_seconds": []}'])
def test_figures_that_are_none_end_their_line(figures: bytes) -> None:
    async def scenario() -> None:
        reader, writer = await asyncio.open_unix_connection(SOCKET)
        writer.write(b'{"role": "worker", "process": "x", "pid": 7, "state": "ready"}\n{"figures": %b}\n' % figures)
        assert await reader.read() == b""
        writer.close()
        assert await reports() == NOTHING

    run(scenario)


def test_requests_can_be_answered_by_an_interface_and_a_worker_or_by_a_server() -> None:
    async def scenario() -> None:
        controller = running_controller()
        assert controller.unready() == "no interface is ready, no worker is ready"
        worker = await reporting(pid=7, state="ready")
        await until(lambda: controller.unready() == "no interface is ready")
        interface = await reporting(pid=8, state="ready", role="interface")
        await until(lambda: not controller.unready())
        worker.close()
        await until(lambda: controller.unready() == "no worker is ready")
        server = await reporting(pid=9, state="ready", role="server")
        await until(lambda: not controller.unready())
        for line in (interface, server):
            line.close()

    run(scenario)


def test_an_instance_is_not_ready_while_somebody_is_about_to_stop_it() -> None:
    async def scenario() -> None:
        controller = running_controller()
        server = await reporting(pid=9, state="ready", role="server")
        await until(lambda: not controller.unready())
        _, line = await asyncio.open_unix_connection(SOCKET)
        line.write(b'{"ask": "stopping"}\n')
        await until(lambda: controller.unready() == "the instance is shutting down")
        line.close()
        await until(lambda: not controller.unready())
        server.close()

    run(scenario)


def test_who_has_no_open_files_left_is_not_ready_unless_another_has_some() -> None:
    async def scenario() -> None:
        controller = running_controller()
        lines = [
            await reporting(pid=pid, state="ready", role=role)
            for pid, role in ((7, "worker"), (8, "interface"), (9, "interface"))
        ]
        await until(lambda: not controller.unready())
        controller.history.add(8, Figures(full=1))
        assert controller.unready() == ""
        controller.history.add(9, Figures(full=1))
        assert controller.unready() == "every interface has reached its open file limit"
        controller.history.add(8, Figures(full=0))
        assert controller.unready() == ""
        for line in lines:
            line.close()

    run(scenario)


def test_a_process_that_stands_still_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        controller = running_controller()
        line = await pushing(pid=7, role="server")
        await until(lambda: 7 in controller.history.latest())
        assert controller.unready() == ""
        monkeypatch.setattr(controller, "_silent_seconds", 0.0)
        assert controller.unready() != ""
        line.close()

    run(scenario)


SILENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(sys.argv[1])
    for process, pid in (("worker-00", os.getpid()), ("worker-01", os.getppid())):  # the other's is no line of its own
        report = {"role": "worker", "process": process, "pid": pid, "state": "ready"}
        line.sendall(json.dumps(report).encode() + b"\\n")
    sys.stdin.read()
"""


@pytest.mark.slow
def test_who_hangs_before_its_first_figures_is_ended_and_nobody_for_anothers_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        silent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SILENT, SOCKET, stdin=asyncio.subprocess.PIPE
        )
        assert await asyncio.wait_for(silent.wait(), 60) == -signal.SIGKILL
        await until(lambda: f"worker-00 (pid {silent.pid}) was silent for" in caplog.text)
        await until(lambda: not running_controller()._listened_to)

    run(scenario, silent_seconds=1.0)


def test_an_event_that_waits_too_long_raises_one_alarm_a_minute_for_each_channel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr("asgictl.control.controller.time.monotonic", lambda: now)
    controller = Controller(Path(), None, "test")
    for now in (0.0, 30.0, 59.0, 61.0):  # noqa: B007 - the clock reads it
        for seconds in (9.0, 11.0):
            controller.channels = {"http.request": Channel(1, 0, seconds, 1)}
            controller._alarm()
    controller.channels["websocket.receive.slow"] = Channel(1, 0, 12.0, 0)
    controller._alarm()
    names = ["http.request", "http.request", "websocket.receive.slow"]
    assert [message.partition(":")[0] for message in caplog.messages] == names
    assert "asgictl scale" in caplog.messages[0]
    assert "no worker serves this channel" in caplog.messages[2]


def test_channels_are_unknown_while_redis_is_away_and_known_again(url: str) -> None:
    controller = Controller(Path(), url, "depths")
    assert controller._redis is not None
    controller._redis.sadd(controller._keys.channels, controller._keys.channel("http.request"))
    controller._look_at_redis()
    assert list(controller.channels) == ["http.request"]
    working, controller._redis = controller._redis, redis.Redis.from_url(f"unix://{Path.cwd()}/absent")
    controller._look_at_redis()
    assert controller.channels == {}
    for client in (working, controller._redis):
        client.close()


def test_a_dead_worker_is_reaped_with_what_it_had_started(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: queue.SimpleQueue[tuple[str, bool, tuple[str, ...]]] = queue.SimpleQueue()
    monkeypatch.setattr(
        "asgictl.control.controller.reap", lambda client, keys, dead, *, seen, started: heard.put((dead, seen, started))
    )
    Started(Path("started-7"), 0).note(b"ch", b"1-0")

    async def scenario() -> None:
        (await reporting(pid=7, state="ready", id="h.7.aa")).close()
        assert await asyncio.to_thread(heard.get, timeout=60) == ("worker/h.7.aa", True, ("ch 1-0",))
        (await reporting(pid=8, state="ready", role="interface", id="h.8.aa")).close()
        assert await asyncio.to_thread(heard.get, timeout=60) == ("interface/h.8.aa", True, ("?",))
        (await reporting(pid=9, state="ready", role="interface", ids=["h.9.aa", "h.9.aa.s"])).close()
        for id in ("h.9.aa", "h.9.aa.s"):
            assert await asyncio.to_thread(heard.get, timeout=60) == (f"interface/{id}", True, ("?",))

    run(scenario, "redis://127.0.0.1:1")
    assert not Path("started-7").exists()


def test_nothing_of_a_hand_over_is_left_of_a_dead_interface() -> None:
    left = [Path("handover-7.sock"), Path("successor-7")]
    others = [Path("handover-8.sock"), Path("successor-8")]
    for each in (*left, *others):
        each.touch()

    async def scenario() -> None:
        (await reporting(pid=7, state="ready", role="interface")).close()
        await until(lambda: not any(each.exists() for each in left))

    run(scenario)
    assert all(each.exists() for each in others)


def test_what_an_interface_has_moved_is_known_after_its_end() -> None:
    async def moves(pid: int, moved: int, of_all: int) -> None:
        controller, known = running_controller(), {"interface-00": {"moved": of_all, "refused": 0, "overdue": 0}}
        line = await reporting(pid=pid, state="ready", role="interface", process="interface-00")
        line.write(json.dumps({"state": "ending", "figures": {"moved": moved}}).encode() + b"\n")
        await until(lambda: controller.moves() == known)
        line.close()
        await until(lambda: pid not in controller.who())
        assert controller.moves() == known

    async def scenario() -> None:
        await moves(7, 5, 5)
        await moves(8, 2, 7)

    run(scenario)


def test_what_a_dead_worker_held_waits_while_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    controller = Controller(Path(), f"unix://{tmp_path}/absent", "test")
    controller._reap({"role": "worker", "process": "worker-00", "pid": 7, "id": "h.7.aa"})
    assert "could not reap worker-00; its lease will expire" in caplog.text


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


def test_what_failed_in_a_slot_is_forgotten_when_another_process_starts_there() -> None:
    async def scenario() -> None:
        lines = [await reporting(pid=7, state="failed", reason="of another", exit_code=3)]
        lines.append(await reporting(pid=8, process="worker-01", state="failed", reason="its own", exit_code=3))
        async with asyncio.timeout(60):
            while len((await reports())["failed"]) < 2:
                pass
        found = await asyncio.to_thread(ask, Path(), "forget", ["worker-00"])
        assert [failure["process"] for failure in found["failed"]] == ["worker-01"]
        for line in lines:
            line.close()

    run(scenario)
