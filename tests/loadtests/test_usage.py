"""What processes use, by role."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from asgictl.loadtests.servers import Server
from asgictl.loadtests.usage import DATABASE, Sample, Usage
from tests.conftest import until

BUSY = "import time, sys; until = time.process_time() + 0.2\nwhile time.process_time() < until: pass\nsys.stdin.read()"


def test_processes_are_found_by_their_environment_and_told_apart_by_role(tmp_path: Path) -> None:
    usage = Usage(str(tmp_path), "other")
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    worker = environment | {"SUPERVISOR_GROUP_NAME": "worker"}
    started = [
        subprocess.Popen([sys.executable, "-c", BUSY], env=each, stdin=subprocess.PIPE)
        for each in (environment, worker, os.environ)
    ]

    def used() -> bool:
        usage.sample()
        return all(usage.samples[-1].cpu.get(role, 0) >= 0.2 for role in ("other", "worker"))

    try:
        until(used, "both have computed")
        ours = {role: pids for role, pids in usage.pids.items() if role != DATABASE}
        assert ours == {"other": [started[0].pid], "worker": [started[1].pid]}
        assert usage.held[-1][1]["worker"] > 1 << 20
        started[1].kill()
        started[1].wait()
        usage.sample()
        assert usage.samples[-1].cpu["worker"] >= 0.2, "what a dead process has used stays used"
        assert "worker" not in usage.pids
    finally:
        for process in started:
            process.communicate()
    assert usage.cpu(0, time.time())["worker"] >= 0


def test_what_sets_its_title_is_found_among_the_processes_of_a_server(tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    environment, titled = Server(0, str(tmp_path), None).environment, "import gunicorn.util, sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", titled], env=environment, stdin=subprocess.PIPE) as process:
        until(lambda: Path(f"/proc/{process.pid}/maps").read_text().count("setproctitle"), "it has set its title")
        usage = Usage(str(tmp_path), "server")
        usage.sample()
        assert usage.pids["server"] == [process.pid]
        process.communicate()


def test_a_database_of_this_machine_works_for_the_side_that_is_measured(tmp_path: Path) -> None:
    shutil.copy(shutil.which("sleep") or "", tmp_path / "postgres")
    usage = Usage(str(tmp_path), "server")
    with subprocess.Popen([str(tmp_path / "postgres"), "60"]) as process:
        until(lambda: psutil.Process(process.pid).name() == "postgres", "it is called so")
        usage.sample()
        process.kill()
    assert process.pid in usage.pids[DATABASE]


def test_between_two_samples_use_is_in_proportion() -> None:
    usage = Usage("", "")
    usage.samples = [
        Sample(10, {"a": 1.0}, {"load busy": 7.0}),
        Sample(20, {"a": 3.0, "b": 1.0}, {"load busy": 9.0}),
        Sample(30, {"a": 3.0, "b": 1.0}, {"load busy": 9.0}),
    ]
    assert usage.cpu(15, 20) == pytest.approx({"a": 1.0, "b": 0.5})
    assert usage.cpu(0, 99) == pytest.approx({"a": 2.0, "b": 1.0})
    assert usage.cores(10, 15) == pytest.approx({"load busy": 1.0})


def test_memory_is_the_most_between_two_times_and_what_was_held_before_one() -> None:
    usage = Usage("", "")
    usage.held = [(10, {"a": 5}), (20, {"a": 7, "b": 1}), (30, {"a": 6})]
    assert usage.memory(10, 20) == {"a": 7, "b": 1}
    assert [usage.weight(moment) for moment in (9, 10, 29, 31)] == [5, 5, 8, 6]


def test_the_connections_that_this_process_holds_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        usage = Usage("", "")
        usage.pids = {"server": [os.getpid()], "worker": [1 << 30]}
        assert usage.connections(port) == {}
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            assert usage.connections(port) == {"server": [1]}
