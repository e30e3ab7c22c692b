"""`asgictl status`, the admin endpoint and the access log, with real processes."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from websockets.sync.client import connect

from asgictl.control.status_schema import Status
from tests.conftest import MODES, Machine, free_port, until
from tests.scenarios.test_demo import SECONDS, get

SLOW = """
import time
from pathlib import Path

def app(environ, start_response):
    Path("taken").touch()
    end = time.monotonic() + 50
    while environ["PATH_INFO"] == "/slow" and not Path("go").exists() and time.monotonic() < end:
        time.sleep(0.01)
    start_response("500 Oh" if environ["PATH_INFO"] == "/fail" else "200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
"""

SLOW_ASGI = """
import asyncio
from pathlib import Path

async def app(scope, receive, send):
    assert scope["type"] == "http"
    Path("taken").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


def admin(machine: Machine, path: str) -> tuple[int, str]:
    """Ask as a probe does: with curl, on the socket."""
    socket = machine.runtime / "asgictl" / "default" / "admin.sock"
    curl = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(socket), f"http://localhost{path}"]
    body, _, status = subprocess.run(curl, capture_output=True, text=True, check=True).stdout.rpartition("\n")
    return int(status), body


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.status()
    return found


def running(machine: Machine) -> list[str]:
    """Return what is said of the processes that run the application."""
    lines = machine.run("status").stdout.split("\n\n")[1].splitlines()
    return [line.split()[1] for line in lines if line.startswith(("worker-", "server-")) and "RUNNING" not in line]


@contextmanager
def slow_request(machine: Machine, directory: Path) -> Iterator[None]:
    """While one is being run."""
    answered: list[int] = []
    client = threading.Thread(target=lambda: answered.append(get(machine.url + "/slow")[0]))
    client.start()
    try:
        until((directory / "taken").exists, "the application has it")
        yield
    finally:
        (directory / "go").touch()
        client.join()
    assert answered == [200]


@pytest.mark.parametrize("mode", MODES)
def test_a_busy_process_is_alive_and_ready_and_is_shown_busy(machine: Machine, tmp_path: Path, mode: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    machine.directory = tmp_path
    machine.start("slow:app", "--mode", mode, "--workers", "1", "--threads", "1")
    until(lambda: running(machine) == ["ready"], "it is shown ready")
    with slow_request(machine, tmp_path):
        until(lambda: running(machine) == ["busy"], "it is shown busy")
        if mode == "split":
            until(lambda: status(machine)["processes"][-1]["busy_share"] > 0.2, "its share grows while it runs")
        assert admin(machine, "/healthz")[0] == 200
        until(lambda: admin(machine, "/readyz")[0] == 200, "it is ready")
    until(lambda: running(machine) == ["ready"], "it is shown ready again")


@pytest.mark.parametrize("mode", MODES)
def test_status_and_metrics_count_what_clients_did(machine: Machine, tmp_path: Path, mode: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    machine.directory = tmp_path
    port = free_port()
    machine.start("slow:app", "--mode", mode, "--workers", "1", "--threads", "3", "--admin-port", str(port))
    for _ in range(10):
        assert get(machine.url + "/hello")[0] == 200
    assert get(machine.url + "/fail")[0] == 500
    until(lambda: status(machine)["requests"]["total"] == 11, "all are counted")
    found = status(machine)
    assert found["requests"]["by_status"] == {"200": 10, "500": 1}
    assert 0 < found["requests"]["p50_seconds"] <= found["requests"]["p99_seconds"] < SECONDS
    assert 0 < found["requests"]["run"]["p50_seconds"] <= found["requests"]["p99_seconds"]
    assert found["database_connections_at_most"] == 3
    until(lambda: sum(each.get("errors", 0) for each in status(machine)["processes"]) == 1, "the error is counted")
    assert all(each["rss_bytes"] > 1 << 20 for each in found["processes"])
    assert json.loads(admin(machine, "/status")[1])["requests"]["by_status"] == found["requests"]["by_status"]
    text = get(f"http://127.0.0.1:{port}/metrics")[2].decode()
    assert 'status="200"} 10.0' in text
    assert "asgictl_request_duration_seconds_bucket" in text
    assert ("asgictl_channel_depth" in text) == (mode == "split") or "channel_depth{" not in text


def test_counts_survive_the_controllers_death(machine: Machine) -> None:
    machine.start("--workers", "1")
    for _ in range(10):
        get(machine.url + "/hello")
    with connect(machine.ws + "/ws/echo") as ws:
        ws.send("x")
        assert ws.recv(SECONDS) == "x"
        until(lambda: (status(machine)["requests"] or {}).get("total") == 10, "all are counted")
        until(lambda: status(machine)["turns"]["total"] >= 2, "turns too")
        turns = status(machine)["turns"]["total"]
        controller = next(each["pid"] for each in status(machine)["processes"] if each["role"] == "controller")
        os.kill(controller, signal.SIGKILL)
        ws.send("y")
        assert ws.recv(SECONDS) == "y"
        until(lambda: (status(machine)["requests"] or {}).get("total") == 10, "all is known again")
        until(lambda: status(machine)["turns"]["total"] == turns + 1, "and what came meanwhile")
        open_now = [each["websockets"] for each in status(machine)["processes"] if each["role"] == "interface"]
        assert open_now == [1]
    until(lambda: admin(machine, "/readyz")[0] == 200, "it is ready")


def test_an_admin_port_that_is_taken_is_told_before_anything_starts(machine: Machine) -> None:
    port = free_port()
    machine.start("--workers", "1", "--admin-port", str(port))
    done = machine.run("start", "--name", "other", "--bind", f"127.0.0.1:{free_port()}", "--admin-port", str(port))
    assert done.returncode == 4
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_the_access_log_has_each_request_and_socket_and_no_query(machine: Machine, mode: str) -> None:
    machine.start("--workers", "1", "--mode", mode, "--access-log")
    assert get(machine.url + "/hello?token=hunter2")[0] == 200
    with connect(machine.ws + "/ws/echo?token=hunter2") as ws:
        ws.send("x")
        ws.recv(SECONDS)
    process = "interface-00" if mode == "split" else "server-00"
    until(lambda: " 1000 close" in machine.log(process), "the socket's end is logged")
    log = machine.log(process)
    assert '127.0.0.1 "GET /hello" ' in log
    assert "WEBSOCKET /ws/echo" in log
    assert " 101 open" in log
    assert " wait=" in log
    assert ("worker=worker-00" in log) == (mode == "split")
    assert "hunter2" not in log


def test_nothing_is_logged_of_requests_unless_asked_for(machine: Machine) -> None:
    machine.start("--workers", "1")
    assert get(machine.url + "/hello")[0] == 200
    assert "/hello" not in machine.log("interface-00")


@pytest.mark.soak
def test_status_of_64_workers_costs_a_quarter_of_a_second_of_cpu(machine: Machine) -> None:
    machine.start("--workers", "64", "--start-seconds", "200")
    with subprocess.Popen(machine.command("status"), env=machine.environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        shown = running.stdout.read().decode()
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    assert shown.count("\nworker-") == 64
    assert used.ru_utime + used.ru_stime < 0.25


def test_a_process_that_ended_unasked_is_told_of_first_with_its_reason(machine: Machine) -> None:
    machine.start("--workers", "1")
    worker = next(each for each in status(machine)["processes"] if each["role"] == "worker")
    assert get(machine.url + "/hello")[0] == 200
    until(lambda: status(machine)["requests"]["total"] == 1, "it is counted")
    os.kill(worker["pid"], signal.SIGSEGV)

    def told() -> bool:
        found = machine.run("status", "--check")
        return found.returncode == 15 and "worker-00 ended " in found.stdout and "SIGSEGV" in found.stdout

    until(told, "the end is told of")
    until(lambda: " ready" in machine.run("status").stdout, "another is ready")
    again = next(each for each in status(machine)["processes"] if each["role"] == "worker")
    assert (again["restarts"], again["last_exit"]["pid"], again["last_exit"]["signal"]) == (1, worker["pid"], "SIGSEGV")
    assert status(machine)["requests"]["total"] == 1


def test_a_server_of_gunicorns_that_ended_unasked_is_told_of_until_a_deploy(machine: Machine) -> None:
    machine.start("--mode", "inprocess", "--workers", "2")
    killed = next(each["pid"] for each in status(machine)["processes"] if each["process"].startswith("server-00/"))
    os.kill(killed, signal.SIGKILL)
    until(lambda: "server-00 ended " in machine.run("status", "--check").stdout, "the end is told of")
    slot = next(each for each in status(machine)["processes"] if each["process"] == "server-00")
    assert (slot["restarts"], slot["last_exit"]["pid"], slot["last_exit"]["signal"]) == (1, killed, "SIGKILL")
    assert machine.run("reload", "--wait").returncode == 0
    until(lambda: machine.run("status", "--check").stdout == "ok\n", "nothing is left of it")


def test_counts_outlive_their_processes_and_the_controller(machine: Machine) -> None:
    machine.start("--workers", "1")
    for _ in range(5):
        assert get(machine.url + "/hello")[0] == 200
    for command in (["reload", "--interfaces", "--wait"], ["restart", "controller"]):  # nobody hears who ends meanwhile
        assert machine.run(*command).returncode == 0
        until(lambda: (status(machine)["requests"] or {}).get("total") == 5, f"all are known after {command}")


@pytest.mark.parametrize("source", [SLOW, SLOW_ASGI], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("mode", MODES)
def test_what_runs_for_long_is_named(machine: Machine, tmp_path: Path, mode: str, source: str) -> None:
    (tmp_path / "slow.py").write_text(source)
    machine.directory = tmp_path
    machine.start("slow:app", "--mode", mode, "--workers", "1", "--threads", "1")
    with slow_request(machine, tmp_path):
        until(lambda: "  GET /slow\n" in machine.run("status").stdout, "its name is shown")


def test_a_status_is_as_the_published_schema_has_it(demo: Machine) -> None:
    found = msgspec.json.decode(demo.run("status", "--json").stdout, type=Status)
    assert found["mode"] == demo.mode
    assert msgspec.json.decode(admin(demo, "/status")[1], type=Status)["name"] == "default"


def test_instances_are_listed_and_stopped_together(machine: Machine) -> None:
    machine.start("--workers", "1", "--name", "shop")
    assert machine.status()["name"] == "shop", "the only one needs no name"
    until(lambda: machine.run("ps").stdout.splitlines()[1].split()[:2] == ["shop", "well"], "it is listed")
    titles = [" ".join(psutil.Process(pid).cmdline()).strip() for pid in machine.pids()]
    for process in ("supervisord", "controller", "worker-00", "interface-00"):
        assert f"asgictl: {process} [shop]" in titles
    assert machine.run("stop", "--all", seconds=150).stdout == "stopped shop\n"
    assert machine.run("ps").stdout.startswith("no instance is running here")
