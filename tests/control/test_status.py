"""What is known of an instance, put together."""

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgictl.config import Bind, InstanceConfig
from asgictl.control import supervisord_client
from asgictl.control.description import describe
from asgictl.control.exits import Exit
from asgictl.control.registry import UNKNOWN, History
from asgictl.control.status import AWAY, look, status
from asgictl.control.status_schema import Status
from asgictl.errors import NotRunning
from asgictl.machine.run_dir import DESCRIPTION
from asgictl.telemetry.metrics import Figures

PID, PARENT = os.getpid(), os.getppid()


def has_slots(monkeypatch: pytest.MonkeyPatch, *slots: dict[str, Any]) -> None:
    monkeypatch.setattr(supervisord_client.Supervisor, "started", lambda _self: [dict(slot) for slot in slots])


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A supervisord with a worker of ours, which is this process, and one that has ended for good."""
    last = Exit(77, 11, -1, time.time() - 100, is_memory=False)._asdict()
    has_slots(
        monkeypatch,
        {"name": "worker-00", "statename": "RUNNING", "pid": PID, "restarts": 2, "last_exit": last},
        {"name": "worker-01", "statename": "FATAL", "pid": 0},
    )
    (tmp_path / DESCRIPTION).write_text(json.dumps(described("split")))
    return tmp_path


def described(mode: str, workers: int = 2) -> dict[str, Any]:
    return describe(InstanceConfig("shop", mode, "m:a", Bind("h:1"), workers, threads=3))


def known(*reports: dict[str, Any], **figures: Any) -> dict[str, Any]:
    history = History()
    history.add(PID, Figures())
    history.add(PID, Figures(**figures))
    ready = [{"role": "worker", "process": "worker-00", **each} for each in reports]
    return UNKNOWN | history.summary() | {"ready": ready}


def test_a_process_is_what_supervisord_the_system_and_it_itself_say(run_dir: Path) -> None:
    runs = [("GET /slow", 2.5)]
    report = {"pid": PID, "threads": 2, "release": "v1"}
    found = look(run_dir, known(report, busy_seconds=1.0, events=7, running=1, runs=runs))
    worker, ended = found["processes"]
    assert (worker["state"], worker["ready"], worker["release"], worker["events"]) == ("RUNNING", True, "v1", 7)
    assert worker["busy_share"] == 0.5  # one of two threads
    assert worker["uptime_seconds"] or 0 > 0
    assert worker["rss_bytes"] or 0 > 1 << 20
    assert worker["runs"][0]["what"] == "GET /slow"
    assert worker["runs"][0]["seconds"] >= 2.5
    assert (ended["state"], ended["ready"], ended["rss_bytes"], ended["restarts"]) == ("FATAL", False, None, 0)
    assert found["redis_url"] == f"unix://{run_dir}/redis.sock"


def test_how_the_process_before_ended_is_told_in_words(run_dir: Path) -> None:
    worker, never = look(run_dir, known())["processes"]
    assert worker["restarts"] == 2
    assert worker["last_exit"] is not None
    assert 99 < worker["last_exit"].pop("seconds_ago") < 200  # type: ignore[misc]
    assert worker["last_exit"] == {"pid": 77, "reason": "SIGSEGV", "signal": "SIGSEGV", "status": None}
    assert never["last_exit"] is None


def test_what_the_controller_has_killed_for_silence_is_known_by_its_pid(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Exit(77, 9, -1, time.time(), is_memory=False)._asdict()
    has_slots(monkeypatch, {"name": "worker-00", "statename": "RUNNING", "pid": PID, "restarts": 1, "last_exit": last})
    for silenced, said in (([], "SIGKILL"), ([77], "silent: it sent no heartbeat (SIGKILL)")):
        (worker,) = look(run_dir, known() | {"silenced": silenced})["processes"]
        assert worker["last_exit"] is not None
        assert worker["last_exit"]["reason"] == said


def test_processes_of_gunicorn_share_a_slot_and_are_shown(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_slots(monkeypatch, {"name": "server-00", "statename": "RUNNING", "pid": 7})
    found = look(run_dir, known({"pid": PARENT, "role": "server", "process": "server-00"}))
    assert [each["role"] for each in found["processes"]] == ["server", "server"]
    assert found["processes"][1]["process"] == f"server-00/{PARENT}"


def test_a_process_that_ended_before_supervisord_was_asked_is_not_shown(run_dir: Path) -> None:
    found = look(run_dir, known({"pid": PID}, {"pid": PARENT, "process": "worker-02"}))
    assert [each["process"] for each in found["processes"]] == ["worker-00", "worker-01"]


def test_programs_read_why_sockets_cannot_move(run_dir: Path) -> None:
    (report,) = look(run_dir, known({"pid": PID, "keeps": "TLS ends here"}))["ready"]
    assert report["keeps"] == "TLS ends here"


def test_programs_read_how_far_a_hand_over_is(run_dir: Path) -> None:
    (worker, _) = look(run_dir, known({"pid": PID}, moved=180, waiting=20, until=9.0))["processes"]
    assert (worker["moved"], worker["refused"], worker["waiting"], worker["until"]) == (180, 0, 20, 9.0)


def test_processes_stand_in_the_order_of_their_slots(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["controller", "interface-00", "worker-02", "worker-99", "worker-100"]
    has_slots(monkeypatch, *({"name": name, "statename": "RUNNING", "pid": 0} for name in reversed(names)))
    assert [each["process"] for each in look(run_dir, known())["processes"]] == names


def test_what_drains_is_not_ready_but_holds_its_connections_to_the_database(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_slots(
        monkeypatch,
        {"name": "worker-00", "statename": "STOPPING", "pid": PID},
        {"name": "worker-01", "statename": "RUNNING", "pid": PARENT},
    )
    old, new = {"pid": PID, "release": "a", "threads": 4}, {"pid": PARENT, "process": "worker-01", "release": "b"}
    found = look(run_dir, known(old, new | {"threads": 3}))
    assert [each.get("release") for each in found["ready"]] == ["b"]
    assert found["database_connections_at_most"] == 2 * 3 + 4
    assert not [line for line in found["warnings"] if "mixed" in line]


def test_what_is_wrong_is_among_the_warnings(run_dir: Path) -> None:
    found = look(run_dir, known({"pid": PID, "release": "a"}, {"pid": PARENT, "release": "b"}))
    assert "mixed releases: a, b; asgictl reload makes them one" in found["warnings"]


@pytest.mark.parametrize("controller", ["there", "away"])
def test_a_status_is_as_its_schema_has_it(run_dir: Path, controller: str) -> None:
    seen = {"channels": {"http.request": {"depth": 1, "taken": 0, "oldest_seconds": 0.5, "readers": 2}}}
    found = look(run_dir, known({"pid": PID, "threads": 2}, running=1) | seen if controller == "there" else UNKNOWN)
    assert msgspec.json.decode(json.dumps(found), type=Status)["name"] == "shop"


def test_a_description_of_an_older_release_is_understood(run_dir: Path) -> None:
    kept = {"name", "mode", "target", "bind", "url", "workers", "threads", "redis"}
    old = {key: value for key, value in described("split").items() if key in kept}
    (run_dir / DESCRIPTION).write_text(json.dumps(old))
    found = look(run_dir, known({"pid": PID, "websocket": "none"}))
    assert (found["interfaces"], found["options"]) == (1, {})
    assert msgspec.json.decode(json.dumps(found), type=Status)["server"] == "uvicorn"


def test_without_a_controller_supervisord_is_asked(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.machine.run_dir.run_directory", lambda name: run_dir)
    found = status("shop")
    assert (found["requests"], found["ready"], found["warnings"]) == (None, [], [AWAY])
    assert [each["process"] for each in found["processes"]] == ["worker-00", "worker-01"]


def test_an_instance_that_does_not_run_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="'shop'"):
        status("shop")
