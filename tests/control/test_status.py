"""What `asgictl status` says."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from asgictl.config import Bind, InstanceConfig
from asgictl.control.instance import describe
from asgictl.control.registry import UNKNOWN, History
from asgictl.control.status import look, status, summary, tables
from asgictl.errors import NotRunning
from asgictl.machine.run_dir import DESCRIPTION
from asgictl.telemetry.metrics import Figures

PID = os.getpid()


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A supervisord with a worker of ours, which is this process, one that ended and one that never started."""
    states = {"worker-00": ("RUNNING", PID), "worker-01": ("FATAL", 0), "worker-02": ("STOPPED", 0)}
    slots = [{"group": "worker", "name": name, "statename": state, "pid": pid} for name, (state, pid) in states.items()]
    monkeypatch.setattr("asgictl.control.supervisord_client.Supervisor.processes", lambda self: slots)
    (tmp_path / DESCRIPTION).write_text(json.dumps(described("split")))
    return tmp_path


def described(mode: str, workers: int = 2) -> dict[str, Any]:
    return describe(InstanceConfig("shop", mode, "m:a", Bind("h:1"), workers, threads=3))


def known(*reports: dict[str, Any], **figures: Any) -> dict[str, Any]:
    history = History()
    history.add(PID, Figures())
    history.add(PID, Figures(**figures))
    return UNKNOWN | history.summary() | {"ready": [{"role": "worker", "process": "x", **each} for each in reports]}


def shown(status: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=140)
    for table in tables(status):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_process_is_what_supervisord_the_system_and_it_itself_say(run_dir: Path) -> None:
    found = look(run_dir, known({"pid": PID, "threads": 2, "release": "v1"}, busy_seconds=1.0, events=7, running=1))
    worker, ended = found["processes"]
    assert (worker["state"], worker["ready"], worker["release"], worker["events"]) == ("RUNNING", True, "v1", 7)
    assert worker["busy_share"] == 0.5  # one of two threads
    assert worker["uptime_seconds"] > 0
    assert worker["rss_bytes"] > 1 << 20
    assert (ended["state"], ended["ready"], ended["rss_bytes"]) == ("FATAL", False, None)
    assert found["database_connections_at_most"] == 6
    assert found["warnings"] == []
    assert json.loads(json.dumps(found))["requests"]["total"] == 0


def test_processes_of_gunicorn_have_no_slot_and_are_shown(run_dir: Path) -> None:
    found = look(run_dir, known({"pid": PID}, {"pid": os.getppid(), "role": "server"}))
    assert [each["role"] for each in found["processes"]] == ["worker", "worker", "server"]
    assert found["processes"][2]["process"] == f"x/{os.getppid()}"


def test_a_process_that_does_not_start_is_warned_of_unless_it_is_gone(run_dir: Path) -> None:
    failures = [{"process": f"worker-0{number}", "reason": "Traceback\nSyntaxError"} for number in (1, 2)]
    found = look(run_dir, known() | {"failed": failures})
    assert found["warnings"] == ["worker-01 does not start: SyntaxError"]


def test_who_has_no_open_files_left_is_warned_of(run_dir: Path) -> None:
    assert look(run_dir, known({"pid": PID}, full=0))["warnings"] == []
    assert look(run_dir, known({"pid": PID}, full=1))["warnings"] == [
        "worker-00 has no more open files and closes connections: raise ulimit -n"
    ]


def test_mixed_releases_are_warned_of(run_dir: Path) -> None:
    found = look(run_dir, known({"pid": PID, "release": "a"}, {"pid": os.getppid(), "release": "b"}))
    assert "warning: mixed releases: a, b" in summary(found)


def test_without_a_controller_supervisord_is_asked(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("asgictl.machine.run_dir.run_directory", lambda name: run_dir)
    found = status("shop")
    assert (found["requests"], found["ready"]) == (None, [])
    assert "worker-00" in shown(found)


def test_an_instance_that_does_not_run_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="'shop'"):
        status("shop")


@pytest.mark.parametrize(
    ("figures", "silent_seconds", "word"),
    [({"running": 1}, 0, "busy"), ({}, 0, "ready"), ({"running": 1}, 12, "silent 12 s")],
)
def test_ready_busy_and_silent_are_told_apart(
    run_dir: Path, figures: dict[str, int], silent_seconds: float, word: str
) -> None:
    seen = known({"pid": PID, "threads": 1}, **figures)
    seen["figures"][PID]["heard_seconds_ago"] = silent_seconds
    (line,) = [line for line in shown(look(run_dir, seen)).splitlines() if line.startswith("worker-00")]
    assert word in line


def test_tables_show_channels_times_and_the_databases_ceiling(run_dir: Path) -> None:
    figures = Figures()
    figures.answer(200, 0.1, 0.09)
    seen = known({"pid": PID, "release": "[bold]v1"}, request_seconds=figures.request_seconds)
    seen["channels"] = {"http.request.slow": {"depth": 5, "taken": 2, "oldest_seconds": 12.25}}
    text = shown(look(run_dir, seen))
    (line,) = [line for line in text.splitlines() if line.startswith("http.request.slow")]
    assert line.split() == ["http.request.slow", "5", "2", "12.2", "s"]
    assert "[bold]v1" in text  # is not taken for markup
    assert [line.split()[1] for line in text.splitlines() if line.startswith("requests")] == ["1.0"]
    assert "database connections at most: 6" in text


def starting(mode: str, ready: list[dict[str, Any]], workers: int = 2) -> dict[str, Any]:
    return {"version": "0", **described(mode, workers), "ready": ready, "shed": {}, "warnings": []}


def test_a_split_summary_counts_both_roles_and_says_that_sockets_survive() -> None:
    text = summary(starting("split", [{"role": "worker", "websocket": "consumers"}] * 2 + [{"role": "interface"}]))
    assert "split · m:a · http://h:1" in text
    assert "redis 1 embedded" in text
    assert "interface 1 ready" in text
    assert "worker 2 ready (3 threads)" in text
    assert "WebSockets: consumers, survive deploys" in text


def test_an_inprocess_summary_says_that_a_deploy_closes_sockets() -> None:
    text = summary(starting("inprocess", [{"role": "server", "websocket": "ASGI"}], workers=1))
    assert "groups in memory   server 1 ready" in text
    assert "WebSockets: ASGI, closed by a deploy" in text


def test_a_summary_says_what_is_missing() -> None:
    text = summary(starting("split", [{"role": "worker", "websocket": "none"}]))
    assert "interface 0 of 1 ready" in text
    assert "worker 1 of 2 ready" in text
    assert text.endswith("WebSockets: none")


def test_a_summary_says_how_many_files_a_process_may_open() -> None:
    ready = [{"role": "worker", "file_limit": 20000}, {"role": "interface", "file_limit": 1024}]
    assert "files at most 1,024 a process" in summary(starting("split", ready))
