"""Starting, stopping and losing processes, in both modes."""

import json
import os
import re
import signal
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS, closed_with, get


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_drains_and_leaves_nothing(machine: Machine, mode: str) -> None:
    process = machine.popen("start", "--mode", mode, "--workers", "2", "--bind", f"127.0.0.1:{machine.port}")
    assert process.stdout
    lines = [process.stdout.readline()]
    while not lines[-1].startswith("Ctrl-C"):
        lines.append(process.stdout.readline())
    assert f"· {mode} · asgictl.demo:app · {machine.url}" in lines[0]
    assert "2 ready" in "".join(lines)
    assert "consumers" in "".join(lines)
    assert get(machine.url + "/hello")[0] == 200
    with connect(machine.ws + "/ws/echo") as ws:
        process.send_signal(signal.SIGINT)
        assert closed_with(ws) == 1012
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert machine.pids() == []
    assert list(machine.runtime.rglob("default")) == []


@pytest.mark.parametrize("mode", MODES)
def test_start_and_stop_again_and_again(machine: Machine, mode: str) -> None:
    for _ in range(int(os.environ.get("ASGICTL_CYCLES", "2"))):
        machine.start("--mode", mode, "--workers", "2")
        assert get(machine.url + "/hello")[0] == 200
        machine.stop()
        assert machine.pids() == []
        assert machine.left() == []


@pytest.mark.parametrize("mode", MODES)
def test_status_says_what_start_said(machine: Machine, mode: str) -> None:
    said = machine.start("--mode", mode, "--workers", "2").rsplit("\n", 2)[0]
    until(lambda: machine.run("status").stdout.startswith(said), "status says the same")
    status = machine.status()
    assert status["mode"] == mode
    assert {process["state"] for process in status["processes"]} <= {"RUNNING", "STARTING"}
    assert sum(report["role"] in ("worker", "server") for report in status["ready"]) == 2


@pytest.mark.parametrize("mode", MODES)
def test_an_address_may_be_ipv6s(machine: Machine, mode: str) -> None:
    url = f"http://[::1]:{machine.port}"
    done = machine.run("start", "--mode", mode, "--workers", "1", "--bind", url.removeprefix("http://"), "-d")
    assert url in done.stdout, done.stderr
    assert get(url + "/hello")[0] == 200


@pytest.mark.parametrize("mode", MODES)
def test_unix_socket_is_its_owners_alone_and_is_removed(machine: Machine, mode: str) -> None:
    path = machine.runtime / "site.sock"
    done = machine.run("start", "--mode", mode, "--workers", "1", "--bind", f"unix:{path}", "-d")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    curl = ["curl", "-s", "--unix-socket", str(path), "http://localhost/hello"]
    assert subprocess.run(curl, capture_output=True, check=True).stdout == b"Hello, world!"
    machine.stop()
    assert not path.exists()


def test_run_directory_and_its_sockets_are_private(machine: Machine) -> None:
    machine.start("--workers", "1")
    run_dir = machine.runtime / "asgictl" / "default"
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    sockets = [path for path in run_dir.iterdir() if path.is_socket()]
    named = {re.sub(r"\d+", "PID", path.name) for path in sockets}
    assert named == {f"{each}.sock" for each in ("admin", "controller", "handover-PID", "redis", "supervisor")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def test_a_workers_sigterm_closes_no_socket_and_counts_go_on(machine: Machine) -> None:
    """The first promise: 50 sockets, two workers, one of them stopped."""
    machine.start("--workers", "2")
    status = machine.status()
    victim = next(report["pid"] for report in status["ready"] if report["role"] == "worker")
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(machine.ws + "/ws/count")) for _ in range(50)]

        def count(number: int) -> None:
            for ws in sockets:
                ws.send("")
            assert [ws.recv(SECONDS) for ws in sockets] == [str(number)] * 50

        for number in range(1, 20):
            count(number)
        for ws in sockets:  # turns are under way while the worker stops
            ws.send("")
        os.kill(victim, signal.SIGTERM)
        assert [ws.recv(SECONDS) for ws in sockets] == ["20"] * 50
        until(lambda: not Path(f"/proc/{victim}").exists(), "the worker ends")
        for number in range(21, 40):
            count(number)
        until(lambda: "worker 2 ready" in machine.run("status").stdout, "supervisord starts another")
        count(40)


def test_a_killed_worker_is_replaced(machine: Machine) -> None:
    machine.start("--workers", "1")
    before = json.loads(get(machine.url + "/where")[2])["pid"]
    os.kill(before, signal.SIGKILL)

    def replaced() -> bool:
        ready = machine.status()["ready"]
        return any(report["role"] == "worker" and report["pid"] != before for report in ready)

    until(replaced, "another worker is ready")
    assert json.loads(get(machine.url + "/where")[2])["pid"] != before


def test_a_killed_controller_is_replaced_and_told_again(machine: Machine) -> None:
    machine.start("--workers", "2")
    said = machine.run("status").stdout.partition("\n\n")[0].partition("\n")[2]
    processes = machine.status()["processes"]
    os.kill(next(process["pid"] for process in processes if process["role"] == "controller"), signal.SIGKILL)
    assert get(machine.url + "/hello")[0] == 200
    until(lambda: f"SIGKILL; asgictl logs controller\n{said}" in machine.run("status").stdout, "status knows all again")


def test_sockets_survive_a_restart_of_redis(machine: Machine) -> None:
    machine.start("--workers", "1")
    with connect(machine.ws + "/ws/count") as ws:
        ws.send("")
        assert ws.recv(SECONDS) == "1"
        status = machine.status()
        os.kill(next(p["pid"] for p in status["processes"] if p["role"] == "redis"), signal.SIGKILL)
        ws.send("")
        assert ws.recv(SECONDS) == "2"
        until(lambda: get(machine.url + "/hello")[0] == 200, "HTTP is served again")


def test_instances_of_different_names_do_not_meet(machine: Machine) -> None:
    machine.start("--workers", "1")
    done = machine.run("start", "--name", "other", "--workers", "1", "--bind", f"unix:{machine.runtime}/o.sock", "-d")
    assert done.returncode == 0, done.stderr
    assert machine.run("stop", "--name", "other").returncode == 0
    assert get(machine.url + "/hello")[0] == 200


def test_roles_run_alone_as_in_containers(machine: Machine) -> None:
    """Redis of an instance, used by an interface and a worker of another name that nobody supervises."""
    machine.start("--workers", "1")
    shared = ("--redis", f"unix://{machine.runtime}/asgictl/default/redis.sock", "--name", "alone")
    path = machine.runtime / "alone.sock"
    worker = machine.popen("worker", *shared)
    interface = machine.popen("interface", *shared, "--bind", f"unix:{path}")
    curl = ["curl", "-s", "--unix-socket", str(path), "http://localhost/where"]
    try:
        until(lambda: b'"split"' in subprocess.run(curl, capture_output=True, check=False).stdout, "they serve")
        where = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
        assert where["pid"] == worker.pid
    finally:
        for process in (interface, worker):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert (interface.returncode, worker.returncode) == (0, 0)
    assert not path.exists()


ASYNC_APPLICATION = """
import asyncio
from asgictl import Application, path

async def join(message):
    await asyncio.sleep(0)
    message.accept()

async def say(message):
    message.state["said"] = message.state.get("said", 0) + 1
    await asyncio.sleep(0.2)
    message.reply(text=f"{message.text} {message.state['said']}")

app = Application(websocket=[path("/ws", connect=join, receive=say)])
"""


@pytest.mark.parametrize("mode", MODES)
def test_async_consumers_run_side_by_side_and_end_with_their_process(
    machine: Machine, tmp_path: Path, mode: str
) -> None:
    """One process of three threads: each of its turns in flight is finished before it ends."""
    (tmp_path / "asynchronous.py").write_text(ASYNC_APPLICATION)
    machine.directory = tmp_path
    machine.start("asynchronous:app", "--mode", mode, "--workers", "1", "--threads", "3")
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(machine.ws + "/ws")) for _ in range(40)]
        for number in range(1, 4):
            for ws in sockets:
                ws.send("hello")
            assert [ws.recv(SECONDS) for ws in sockets] == [f"hello {number}"] * 40
        if mode == "split":
            worker = next(r["pid"] for r in machine.status()["ready"] if r["role"] == "worker")
            for ws in sockets:
                ws.send("hello")
            os.kill(worker, signal.SIGTERM)
            assert [ws.recv(SECONDS) for ws in sockets] == ["hello 4"] * 40
            until(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends")
    status, _, body = get(machine.url + "/")
    assert (status, body != b"") == (404, True)
