"""A2: a process that says nothing, for it stands still or its code holds the GIL, is killed; the rest goes on."""

import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from benchmarks.numbered import Load
from tests.conftest import MODES, Machine, new_machine, redis_server, until

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
SILENT_SECONDS = 3
APPLICATION = """
import os, re
from asgictl import Application, Channel, path

def hang(kind):
    '''Once for each kind: whoever runs it again finds the mark.'''
    try:
        os.close(os.open("hung-" + kind, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    re.match(r"(a+)+$", "a" * 40 + "b")

def wsgi(environ, start_response):
    kind = environ["PATH_INFO"].strip("/")
    if "job" in kind:
        Channel(kind).send({})
    elif kind:
        hang(kind)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    hang("asgi")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

def receive(message):
    hang("consumer")
    message.reply(text="done")

async def areceive(message):
    hang("aconsumer")
    message.reply(text="done")

def job(message):
    hang("job")

async def ajob(message):
    hang("ajob")

app = Application(
    http={"/": wsgi, "/asgi": asgi},
    websocket=[path("/consumer", receive=receive), path("/aconsumer", receive=areceive)],
    background={"job": job, "ajob": ajob},
)
"""


@pytest.fixture(scope="module", params=MODES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with new_machine() as made:
        made.directory, made.mode = tmp_path_factory.mktemp("app"), request.param
        (made.directory / "app.py").write_text(APPLICATION)
        made.start("app:app", "--mode", made.mode, "--workers", "2", "--silent-seconds", str(SILENT_SECONDS))
        yield made


def ready(machine: Machine) -> dict[int, str]:
    """Return the role of each process that is ready, by pid."""
    return {each["pid"]: each["role"] for each in machine.status()["ready"]}


def status_of(url: str, method: str = "GET") -> int:
    """Return the status of a response; 0 where a connection is closed without one."""
    try:
        with urlopen(Request(url, method=method), timeout=SECONDS) as answered:
            return int(answered.status)
    except HTTPError as error:
        return error.code
    except (URLError, ConnectionError, TimeoutError):
        return 0


def trigger(machine: Machine, kind: str) -> None:
    if kind.endswith("consumer"):
        with suppress(WebSocketException), connect(f"{machine.ws}/{kind}") as ws:
            ws.send("x")
            ws.recv(SECONDS)  # split: run again elsewhere; in-process the socket ends with its server
    else:
        status_of(f"{machine.url}/{kind}", "POST")


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("wsgi", "POST /wsgi"),
        ("asgi", "POST /asgi"),
        ("consumer", "websocket.receive /consumer"),
        ("aconsumer", "websocket.receive /aconsumer"),
        ("job", "background.job"),
        ("ajob", "background.ajob"),
    ],
)
def test_code_that_holds_the_gil_costs_its_process_alone(served: Machine, kind: str, named: str) -> None:
    before, logged = ready(served), len(served.log("controller"))
    trigger(served, kind)
    assert served.directory
    until((served.directory / f"hung-{kind}").exists, "it runs")
    until(lambda: "was killed" in served.log("controller")[logged:], "its process is killed")
    killed = re.findall(r"\S+ \(pid (\d+)\) was silent .*; it ran (.*)", served.log("controller")[logged:])
    assert len(killed) == 1
    assert int(killed[0][0]) in before
    assert named in killed[0][1]
    assert status_of(served.url + "/") == 200
    until(lambda: sorted(ready(served).values()) == sorted(before.values()), "another takes its place")
    slots = ("worker-00", "worker-01") if served.mode == "split" else ("server-00",)
    until(lambda: any("in hang" in served.log(slot) for slot in slots), "the stack of what holds the GIL is logged")


def test_processes_that_stand_still_are_replaced(served: Machine) -> None:
    before = ready(served)
    still = {role: pid for pid, role in before.items()}  # one of each role
    for pid in still.values():
        os.kill(pid, signal.SIGSTOP)
    for pid in still.values():
        until(lambda: f"(pid {pid}) was silent" in served.log("controller"), "it is killed")  # noqa: B023
    until(lambda: sorted(ready(served).values()) == sorted(before.values()), "others take their places")
    until(lambda: status_of(served.url + "/") == 200, "requests are served")
    assert not {*still.values()} & {*served.pids()}


@pytest.mark.soak
def test_a_controller_that_stood_still_kills_nobody(served: Machine) -> None:
    before = ready(served)
    until(lambda: ready(served) == before, "nothing changes")
    controller = next(each["pid"] for each in served.status()["processes"] if each["process"] == "controller")
    logged = len(served.log("controller"))
    os.kill(controller, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):  # for longer than anybody may be silent
        subprocess.run(["sleep", "60"], timeout=2 * SILENT_SECONDS, check=False)
    os.kill(controller, signal.SIGCONT)
    until(lambda: ready(served) == before, "everybody is known again")
    assert "was silent" not in served.log("controller")[logged:]


ALONE = """
import re

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        re.match(r"(a+)+$", "a" * 40 + "b")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_a_worker_that_runs_alone_ends_itself(machine: Machine, tmp_path: Path) -> None:
    """An interface has no code of users; test_losses.py has one that stands still."""
    (tmp_path / "app.py").write_text(textwrap.dedent(ALONE))
    machine.directory = tmp_path
    with redis_server("valkey-8") as url:
        options = ("--redis", url, "--silent-seconds", "2")
        interface = machine.popen("interface", "--bind", f"127.0.0.1:{machine.port}", *options)
        worker = machine.popen("worker", "app:app", *options)
        try:
            until(lambda: status_of(machine.url + "/") == 200, "it serves")
            assert status_of(machine.url + "/hang", "POST") in (502, 504)
            assert worker.wait(SECONDS) == 1
            assert worker.stdout
            assert "in app" in worker.stdout.read()
        finally:
            for process in (interface, worker):
                process.terminate()
                process.communicate(timeout=SECONDS)


@pytest.mark.soak
def test_a_limit_that_is_raised_lets_code_hold_the_gil_longer(machine: Machine, tmp_path: Path) -> None:
    """A lease that did not follow would have it run twice."""
    source = """
    import ctypes

    def app(environ, start_response):
        with open("ran", "a") as file:
            file.write("x")
        ctypes.PyDLL(None).sleep(7)  # holds the GIL
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(source))
    machine.directory = tmp_path
    machine.start("app:app", "--workers", "2", "--silent-seconds", "20")
    assert status_of(machine.url + "/") == 200
    assert (tmp_path / "ran").read_text() == "x"


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_hangs_always_becomes_a_dead_letter(machine: Machine, tmp_path: Path, mode: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION.replace("        return\n", "        pass\n"))
    machine.directory = tmp_path
    machine.start("app:app", "--mode", mode, "--workers", "2", "--silent-seconds", "2")
    assert status_of(machine.url + "/job", "POST") == 200
    until(lambda: "background.job" in machine.run("dead-letters", "list").stdout, "it is given up", 60)
    assert status_of(machine.url + "/") == 200


NUMBERED = """
import re
from asgictl import Application
from benchmarks import numbered

def view(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        re.match(r"(a+)+$", "a" * 40 + "b")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = Application(http=view, websocket=numbered.app.routes)
"""


@pytest.mark.soak
def test_neighbours_of_a_worker_that_hangs_lose_nothing(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NUMBERED)
    machine.directory = tmp_path
    machine.environment |= {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    machine.start("app:app", "--workers", "3", "--timeout", "5")
    with Load(machine.url, sockets=200, pace_seconds=0.5) as load:
        until(lambda: load.messages > 1000, "it flows")
        for _ in range(2):
            assert status_of(machine.url + "/hang", "GET") == 502
        goal = load.messages + 1000
        until(lambda: load.messages > goal or load.wrong, "it flows on")
    assert load.wrong == []
    assert load.longest_stall_seconds < 8
    assert "it ran GET /hang" in machine.log("controller")
