"""ASGI applications of other kinds; and what only split mode has: parts that end by themselves."""

import json
import os
import signal
import threading
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.asgi_project import APPLICATION, lives, response_of, told
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_faults import client_of, pids
from tests.scenarios.test_http import client


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    (tmp_path / "asgi_app.py").write_text(APPLICATION)
    return machine


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["Two", "without_lifespan"])
def test_asgi_2_and_applications_without_lifespan(project: Machine, mode: str, target: str) -> None:
    project.start(f"asgi_app:{target}", "--mode", mode, "--workers", "1")
    lives(project)
    assert get(project.url + "/state")[2] == b"1 1"
    with connect(project.ws + "/echo") as ws:
        ws.send("echo")
        assert ws.recv(SECONDS) == "echo"


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_startup_is_a_failed_start_with_its_reason(project: Machine, mode: str) -> None:
    bind = ("--bind", f"127.0.0.1:{project.port}")
    done = project.run("start", "asgi_app:failing", "--mode", mode, "--workers", "1", *bind)
    assert done.returncode == 3
    assert "the cellar is flooded" in done.stderr


def test_an_application_that_never_answers_is_cancelled_and_its_worker_lives_on(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1", "--timeout", "1")
    assert get(project.url + "/never")[0] == 504
    with pytest.raises(InvalidStatus, match="504"):
        connect(project.ws + "/never")
    lives(project)
    for line in ("asgi_app:app: GET /never failed", "asgi_app:app: WebSocket /never failed"):
        until(lambda: project.log("worker-00").count(line) == 1, "the log names target and event")  # noqa: B023 - not kept


@pytest.mark.parametrize("mode", MODES)
def test_wsgi_beside_sockets_of_asgi(project: Machine, mode: str) -> None:
    project.start("asgi_app:mixed", "--mode", mode, "--workers", "1")
    with connect(project.ws + "/echo") as ws:
        assert get(project.url + "/anything")[2] == b"of WSGI"
        ws.send("echo")
        assert ws.recv(SECONDS) == "echo"


# What only split mode has: parts that end by themselves


def the_worker(machine: Machine) -> int:
    (pid,) = pids(machine, "worker")
    return pid


def test_a_killed_worker_takes_its_sockets_and_what_it_streams_with_it(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo") as ws, client(project) as streaming:
        streaming.send("GET /stream_left?dies HTTP/1.1")
        streaming.hear(b"tick")
        os.kill(the_worker(project), signal.SIGKILL)
        assert closed_with(ws) == 1012
        with pytest.raises((AssertionError, OSError)):
            streaming.hear(b"0\r\n\r\n")
    lives(project)


def test_a_worker_that_drains_finishes_http_and_serves_its_sockets_for_as_long_as_it_may(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1", "--drain-seconds", "6")
    before = the_worker(project)
    with connect(project.ws + "/echo?drained") as ws, client(project) as polling:
        polling.send("GET /wait_set?drain HTTP/1.1")
        told(project, "waits-drain")
        os.kill(before, signal.SIGTERM)
        until(lambda: "draining" in project.log("worker-00"), "it drains")
        ws.send("served still")
        assert ws.recv(SECONDS) == "served still"
        assert project.directory
        (project.directory / "set-drain").touch()
        assert response_of(polling)[1] == b"news"
        assert closed_with(ws) == 1012
    assert json.loads(told(project, "left-drained")) == [1012, ""]
    until(lambda: pids(project, "worker") - {before}, "another is ready", SECONDS)
    lives(project)


def test_a_drained_worker_takes_nothing_new(project: Machine) -> None:
    """While the first serves what it has, the second serves the rest."""
    project.start("asgi_app:app", "--workers", "2")
    with connect(project.ws + "/pid") as ws:
        first = int(ws.recv(SECONDS))
        os.kill(first, signal.SIGTERM)
        until(lambda: "draining" in logs(project), "it drains")
        assert {int(get(project.url + "/pid")[2]) for _ in range(50)} == pids(project, "worker") - {first}
        ws.send("?")
        assert int(ws.recv(SECONDS)) == first


def logs(machine: Machine) -> str:
    return machine.log("worker-00") + machine.log("worker-01")


class Numbered:
    """A socket that sends 0, 1, 2 ... to be echoed, at most 200 ahead of what comes back, until it is told to end."""

    def __init__(self, ws: ClientConnection) -> None:
        self.heard: list[str] = []
        self.is_over = threading.Event()
        self._ws = ws
        self._ahead = threading.Semaphore(200)
        self._threads = [threading.Thread(target=act) for act in (self._send, self._hear)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        for number in count():
            if self.is_over.is_set() or not self._ahead.acquire(timeout=SECONDS):
                break
            self._ws.send(str(number))
        self._ws.send("end")

    def _hear(self) -> None:
        while (said := str(self._ws.recv(SECONDS))) != "end":
            self.heard.append(said)
            self._ahead.release()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_cut_connections_to_redis_lose_repeat_and_reorder_nothing(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with ExitStack() as stack, client_of(project) as admin:
        sockets = [Numbered(stack.enter_context(connect(project.ws + "/echo"))) for _ in range(5)]

        def flows() -> None:
            goals = [len(each.heard) + 1000 for each in sockets]
            until(lambda: all(len(each.heard) >= goal for each, goal in zip(sockets, goals, strict=True)), "it flows")

        try:
            for _ in range(8):
                flows()
                admin.client_kill_filter(_type="normal", skipme=True)
            flows()
        finally:
            for each in sockets:
                each.is_over.set()
            for each in sockets:
                each.join()
        for each in sockets:
            assert each.heard == [str(number) for number in range(len(each.heard))]


def test_sockets_end_when_redis_forgets_everything_and_their_applications_hear_of_it(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo?forgotten") as ws, client_of(project) as admin:
        ws.send("before")
        assert ws.recv(SECONDS) == "before"
        admin.flushall()
        assert closed_with(ws) == 1012
    told(project, "left-forgotten")
    with connect(project.ws + "/echo") as ws:
        ws.send("after")
        assert ws.recv(SECONDS) == "after"


def test_applications_hear_of_the_death_of_an_interface_though_they_say_nothing(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo?orphan") as ws, client(project) as raw:
        raw.send("GET /wait_left?orphan HTTP/1.1")
        told(project, "waits-orphan")
        (interface,) = pids(project, "interface")
        os.kill(interface, signal.SIGKILL)
        assert closed_with(ws) == 1006
    assert json.loads(told(project, "left-orphan"))[0] == 1006
    assert told(project, "heard-orphan") == "http.disconnect"
    until(lambda: pids(project, "interface") - {interface}, "another is ready", SECONDS)
    lives(project)
