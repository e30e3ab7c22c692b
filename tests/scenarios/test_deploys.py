"""Reload, restart and scale under load; deploys that fail; what is left when supervisord is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_status import admin

SITE = """
import asyncio
import os
import time
from asgictl import Application, path

def site(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"VERSION"]

def count(message):
    message.state["count"] = message.state.get("count", 0) + 1
    message.reply(text=f"{message.state['count']} {message.text}")

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": "VERSION " + message["text"]})

app = Application(http=site, websocket=[path("/ws", receive=count)])
sockets = Application(http=site, websocket=asgi)

async def streams(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"VERSION\\n", "more_body": True})
            await asyncio.sleep(0.1)
"""
BROKEN = {
    "syntax": ("def (", "SyntaxError", 3),
    "import": ("import absent_module", "absent_module", 3),
    "lifespan": (
        """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})
""",
        "the cellar is flooded",
        3,
    ),
    "hang": ("import time; print('waits for a database', flush=True); time.sleep(600)", "waits for a database", 8),
    "dies": ("import os; print('out of luck', flush=True); os._exit(9)", "out of luck", 8),
}


@pytest.fixture
def site(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    deploy(machine, "one")
    return machine


def deploy(machine: Machine, version: str, code: str = SITE) -> None:
    assert machine.directory
    (machine.directory / "deployed.py").write_text(code.replace("VERSION", version))


def served(machine: Machine) -> bytes:
    return get(machine.url + "/")[2]


class Load:
    """Requests and numbered frames, until it is told to stop; what went wrong stands in `wrong`."""

    def __init__(self, machine: Machine, sockets: int = 10) -> None:
        self.requests = self.frames = 0
        self.wrong: list[str] = []
        self._machine = machine
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._request)]
        self._threads += [threading.Thread(target=self._talk) for _ in range(sockets)]

    def _request(self) -> None:
        while not self._stop.is_set():
            try:
                get(self._machine.url + "/")
                self.requests += 1
            except (OSError, URLError) as error:
                self.wrong.append(f"request: {error!r}")

    def _talk(self) -> None:
        try:
            with connect(self._machine.ws + "/ws") as ws:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    ws.send(str(number))
                    if (heard := ws.recv(SECONDS)) != f"{number} {number}":
                        self.wrong.append(f"frame {number} was answered {heard!r}")
                    self.frames += 1
        except (OSError, TimeoutError, ConnectionClosed) as error:
            self.wrong.append(f"socket: {error!r}")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def processes(machine: Machine, role: str) -> dict[str, int]:
    found = machine.status()["processes"]
    return {
        each["process"]: each["pid"]
        for each in found
        if each["role"] == role and each["state"] in ("STARTING", "RUNNING")
    }


def held_by(machine: Machine, role: str) -> int:
    found = machine.status()["processes"]
    return sum(each.get("websockets", 0) for each in found if each["role"] == role)


def releases(machine: Machine) -> set[str]:
    return {report["release"] for report in machine.status()["ready"] if "release" in report}


def test_reload_serves_the_new_code_and_drops_nothing(site: Machine) -> None:
    site.start("deployed:app", "--workers", "2", "--release", "first")
    assert releases(site) == {"first"}
    before = processes(site, "worker")
    with Load(site) as load:
        for version in ("two", "three"):
            deploy(site, version)
            done = site.run("reload", "--release", version)
            assert done.returncode == 0, done.stderr
            assert served(site) == version.encode()
            until(lambda: releases(site) == {version}, "the old ones have drained")  # noqa: B023 - not kept
    assert load.wrong == []
    assert load.requests
    assert load.frames
    assert not set(before.values()) & set(processes(site, "worker").values())


@pytest.mark.parametrize("mode", MODES)
def test_broken_deploys_change_nothing_and_say_why(site: Machine, mode: str) -> None:
    site.start("deployed:app", "--mode", mode, "--workers", "2", "--start-seconds", "12", "--release", "first")
    role = "worker" if mode == "split" else "server"
    before = processes(site, role)
    with Load(site, 2) as load:
        for code, reason, status in BROKEN.values():
            deploy(site, "two", code)
            done = site.run("reload", "--release", "second")
            assert done.returncode == status, done.stdout + done.stderr
            assert reason in done.stderr
            assert role in done.stderr
            assert processes(site, role) == before
            assert releases(site) == {"first"}
    assert load.wrong == []
    assert served(site) == b"one"
    deploy(site, "two")
    assert site.run("reload").returncode == 0
    assert served(site) == b"two"


def test_reload_in_process_serves_the_new_code_and_closes_sockets_with_1012(site: Machine) -> None:
    site.start("deployed:app", "--mode", "inprocess", "--workers", "2")
    with connect(site.ws + "/ws") as ws:
        deploy(site, "two")
        until(lambda: '"websockets": 1' in site.run("status", "--json").stdout, "the socket is counted")
        done = site.run("reload", "--wait")
        assert done.stdout == "reloaded servers; 1 WebSocket was closed with 1012\n"
        assert "starting 2 servers" in done.stderr
        assert "draining server-00: 1 WebSocket (closed by " in done.stderr
        assert closed_with(ws) == 1012
    assert served(site) == b"two"
    assert "ERROR" not in site.log("controller"), "who ends in order has not died"


def test_sockets_of_an_asgi_application_end_by_drain_alone(site: Machine) -> None:
    site.start("deployed:sockets", "--workers", "1", "--drain-seconds", "600")
    with connect(site.ws + "/") as ws:
        ws.send("a")
        assert ws.recv(SECONDS) == "one a"
        deploy(site, "two")
        reload = site.popen("reload", "--wait")
        until(lambda: "worker-01" in processes(site, "worker"), "a new worker starts")
        until(lambda: len(processes(site, "worker")) == 1, "the old one drains")
        with connect(site.ws + "/") as new:
            new.send("b")
            assert new.recv(SECONDS) == "two b"
        ws.send("c")
        assert ws.recv(SECONDS) == "one c"
        assert reload.poll() is None
        reload.send_signal(signal.SIGINT)
        assert "the old processes go on draining" in reload.communicate(timeout=60)[0]
        assert reload.returncode == 0
        ws.send("d")
        assert ws.recv(SECONDS) == "one d"
    until(lambda: "STOPPING" not in site.run("status", "--json").stdout, "it has drained")


@pytest.mark.parametrize("mode", MODES)
def test_a_reload_does_not_wait_for_the_drain_of_the_one_before(site: Machine, mode: str) -> None:
    """What streams holds the old processes."""
    site.start("deployed:streams", "--mode", mode, "--workers", "1", "--release", "one")
    role = "worker" if mode == "split" else "server"
    streams = [urlopen(site.url + "/", timeout=SECONDS)]
    for version in ("two", "three", "four"):
        assert streams[-1].readline()
        deploy(site, version)
        done = site.run("reload", "--release", version)
        assert done.returncode == 0, done.stderr
        assert f"release {version}" in done.stderr
        assert "draining" in done.stderr
        assert releases(site) == {version}
        streams.append(urlopen(site.url + "/", timeout=SECONDS))
    assert [stream.readline() for stream in streams[1:]] == [b"two\n", b"three\n", b"four\n"]
    assert streams[0].readline() == b"one\n", "the first drains on"
    found = site.status()
    held = [each for each in found["processes"] if each["role"] == role and each["state"] == "STOPPING"]
    draining = {each["process"].partition("/")[0] for each in held}
    assert len(draining) == 3
    until(lambda: site.run("status").stdout.count("draining") == len(held), "each is shown to drain")
    broken = BROKEN["syntax"][0]
    deploy(site, "five", broken)
    done = site.run("reload", "--release", "five")
    assert done.returncode == 3
    assert "nothing has changed: release four still serves" in done.stderr
    for stream in streams:
        stream.close()


def test_sockets_move_with_every_deploy_of_interfaces(site: Machine) -> None:
    site.start("deployed:app", "--workers", "1", "--interfaces", "2")
    with Load(site, 20) as load:
        for _ in range(3):
            done = site.run("reload", "--interfaces", "--wait")
            assert done.returncode == 0, done.stderr
            assert done.stdout == "reloaded interfaces\n"
    assert load.wrong == []
    assert load.frames
    assert "handing over" in done.stderr
    until(lambda: "hands over" not in site.run("status").stdout, "it is over")


HELD = """
    while message.text == "held" and not os.path.exists("go"):
        time.sleep(0.02)
    message.reply"""


def test_a_hand_over_under_way_is_shown_until_its_handler_is_done(site: Machine) -> None:
    deploy(site, "one", SITE.replace("    message.reply", HELD))
    site.start("deployed:app", "--workers", "2", "--interfaces", "1")
    with connect(site.ws + "/ws") as slow, connect(site.ws + "/ws") as idle:
        until(lambda: held_by(site, "interface") == 2, "both sockets are counted")
        slow.send("held")
        idle.send("0")
        assert idle.recv(SECONDS) == "1 0"
        done = site.run("reload", "--interfaces")
        assert "handing over 2 WebSockets of interface-00 to interface-01, until " in done.stderr
        until(lambda: "interface-00 hands over: 1 moved, 1 wait, until " in site.run("status").stdout, "it is shown")
        idle.send("0")
        assert idle.recv(SECONDS) == "2 0"
        assert site.directory
        (site.directory / "go").touch()
        assert slow.recv(SECONDS) == "1 held"
        until(lambda: "hands over" not in site.run("status").stdout, "it is over")
        slow.send("0")
        assert slow.recv(SECONDS) == "2 0"
    status, metrics = admin(site, "/metrics")
    assert status == 200
    assert 'asgictl_websockets_handed_over_total{process="interface-00",role="interface"} 2.0' in metrics


def test_sockets_that_cannot_move_are_said_at_start_and_close(site: Machine) -> None:
    told = site.start("deployed:sockets", "--workers", "1", "--interfaces", "1")
    assert "  closed when their interface is replaced: ASGI applications' sockets\n" in told
    with connect(site.ws + "/") as ws:
        ws.send("a")
        assert ws.recv(SECONDS) == "one a"
        until(lambda: held_by(site, "interface") == 1, "the socket is counted")
        done = site.run("reload", "--interfaces", "--wait")
        assert done.stdout == "reloaded interfaces; 1 WebSocket was closed with 1012\n"
        assert "draining interface-00: 1 WebSocket (closed by " in done.stderr
        assert closed_with(ws) == 1012


def test_interfaces_are_replaced_while_others_still_drain(site: Machine) -> None:
    """What streams holds the old processes."""
    site.start("deployed:streams", "--workers", "1", "--interfaces", "1")
    streams = [urlopen(site.url + "/", timeout=SECONDS)]
    for _ in range(3):
        assert streams[-1].readline() == b"one\n"
        done = site.run("reload", "--interfaces")
        assert done.returncode == 0, done.stderr
        streams.append(urlopen(site.url + "/", timeout=SECONDS))
    found = site.status()["processes"]
    states = [each["state"] for each in found if each["role"] == "interface"]
    assert states.count("STOPPING") == 3
    assert len(states) == 4
    assert [stream.readline() for stream in streams] == [b"one\n"] * 4
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("mode", MODES)
def test_start_reload_deploys_when_a_file_changes_until_it_is_stopped(site: Machine, mode: str) -> None:
    bind = ("--bind", f"127.0.0.1:{site.port}")
    process = site.popen("start", "deployed:app", "--mode", mode, "--workers", "1", "--reload", *bind)
    assert process.stdout
    while "Ctrl-C" not in process.stdout.readline():
        pass
    said: list[str] = []
    reading = threading.Thread(target=said.extend, args=(process.stdout,))
    reading.start()
    changes = count()

    def reloads() -> bool:
        deploy(site, f"change {next(changes)}")  # one that comes before it watches is not seen
        with suppress(AssertionError):
            until(lambda: "reloaded" in "".join(said), "it has reloaded", 5)
        return "reloaded" in "".join(said)

    until(reloads, "a change is deployed")
    deploy(site, "broken", BROKEN["syntax"][0])
    until(lambda: "SyntaxError" in "".join(said), "a broken change is told")
    assert served(site).startswith(b"change")
    deploy(site, "two")
    until(lambda: served(site) == b"two", "the next change serves")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    reading.join()
    process.stdout.close()


def test_one_change_at_a_time(site: Machine) -> None:
    site.start("deployed:app", "--workers", "1", "--start-seconds", "60")
    deploy(site, "two", BROKEN["hang"][0])
    reload = site.popen("reload")
    until(lambda: len(processes(site, "worker")) == 2, "a new worker starts")
    done = site.run("scale", "worker=2")
    assert done.returncode == 6
    assert "under way" in done.stderr
    reload.send_signal(signal.SIGTERM)
    assert "interrupted" in reload.communicate(timeout=60)[0]
    assert served(site) == b"one"
    until(lambda: len(processes(site, "worker")) == 1, "what had started is gone")


def test_scale_up_and_down_drops_nothing(site: Machine) -> None:
    site.start("deployed:app", "--workers", "1", "--interfaces", "1")
    with Load(site) as load:
        for workers in (4, 1, 3):
            assert site.run("scale", f"worker={workers}").returncode == 0
            assert len(processes(site, "worker")) == workers
        for interfaces in (3, 1):
            assert site.run("scale", f"interface={interfaces}").returncode == 0
            assert len(processes(site, "interface")) == interfaces
        until(lambda: "interface 1 ready" in site.run("status").stdout, "one is left")
    assert load.wrong == []


@pytest.mark.parametrize("counts", ["worker", "worker=0", "worker=65", "interface=17", "redis=2", "worker=many"])
def test_scale_says_what_it_takes(site: Machine, counts: str) -> None:
    done = site.run("scale", counts)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_restart_and_reload_of_every_role(site: Machine) -> None:
    site.start("deployed:app", "--workers", "2", "--interfaces", "2")
    with connect(site.ws + "/ws") as ws:
        for number, role in enumerate(("worker", "redis", "controller"), 1):
            before = processes(site, role)
            done = site.run("restart", role)
            assert done.returncode == 0, done.stderr
            assert not set(before.values()) & set(processes(site, role).values())
            ws.send("x")
            assert ws.recv(SECONDS) == f"{number} x"
        workers = processes(site, "worker")
        for number, change in enumerate((["restart", "interface"], ["reload", "--interfaces"]), 4):
            before = processes(site, "interface")
            done = site.run(*change, "--wait")
            assert done.returncode == 0, done.stderr
            assert "closed" not in done.stdout
            assert not set(before.values()) & set(processes(site, "interface").values())
            ws.send("x")
            assert ws.recv(SECONDS) == f"{number} x"
    done = site.run("restart", "server")
    assert (done.returncode, done.stderr) == (7, "Error: --mode=split has no server\n")
    assert site.run("logs", "wroker").returncode == 2
    assert served(site) == b"one"
    assert processes(site, "worker") == workers
    assert "fenced" not in "".join(site.log(worker) for worker in workers)


def test_logs_of_a_role_and_what_follows(site: Machine) -> None:
    deploy(site, "one", "print('hello from the module', flush=True)\n" + SITE)
    site.start("deployed:app", "--workers", "1")
    until(lambda: "worker-00 | hello from the module" in site.run("logs", "worker").stdout, "its line is there")
    assert "worker" not in site.run("logs", "redis").stdout
    following = site.popen("logs", "-f", "worker")
    assert following.stdout
    assert "hello" in following.stdout.readline()
    site.run("reload")
    assert following.stdout.readline() == "worker-01 | hello from the module\n"
    following.send_signal(signal.SIGTERM)
    following.communicate(timeout=60)


@contextmanager
def lost_supervisord(machine: Machine, *arguments: str) -> Iterator[list[int]]:
    machine.start("deployed:app", *arguments)
    pid = int((machine.runtime / "asgictl" / "default" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in machine.pids(), "supervisord is dead")
    yield machine.pids()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_killed_supervisord_leaves_serves_on_until_the_next_start_ends_it(site: Machine, mode: str) -> None:
    with lost_supervisord(site, "--mode", mode, "--workers", "2") as left:
        with connect(site.ws + "/ws") as ws:
            ws.send("x")
            assert ws.recv(SECONDS) == "1 x"
        assert served(site) == b"one"
        assert "asgictl start or stop ends its processes" in site.run("status").stderr
        deploy(site, "two")
        done = site.run("start", "deployed:app", "--mode", mode, "--bind", f"127.0.0.1:{site.port}", "-d")
        assert done.returncode == 0, done.stderr
        assert f"ended {len(left)} processes" in done.stderr
        assert served(site) == b"two"
        assert not set(left) & set(site.pids())


def test_stop_ends_what_a_killed_supervisord_left(site: Machine) -> None:
    with lost_supervisord(site, "--workers", "2"):
        assert site.run("stop").returncode == 0
        assert site.pids() == []
        assert site.left() == []
        assert site.run("stop").returncode == 7


def test_a_killed_controller_and_supervisord_stop_no_traffic(site: Machine) -> None:
    site.start("deployed:app", "--workers", "1")
    with Load(site, 2) as load:
        controller = processes(site, "controller")["controller"]
        os.kill(int((site.runtime / "asgictl" / "default" / "supervisord.pid").read_text()), signal.SIGKILL)
        os.kill(controller, signal.SIGKILL)
        seen = load.requests, load.frames
        until(lambda: load.requests > seen[0] + 20 and load.frames > seen[1] + 20, "traffic goes on")
    assert load.wrong == []


def test_the_servers_of_a_killed_gunicorn_end(site: Machine) -> None:
    site.start("deployed:app", "--mode", "inprocess", "--workers", "2")
    status = site.status()
    before = {report["pid"] for report in status["ready"]}
    (gunicorn,) = {each["pid"] for each in status["processes"] if each["role"] == "server"} - before
    os.kill(gunicorn, signal.SIGKILL)
    until(lambda: not before & set(site.pids()), "they end")

    def serves() -> bool:
        with suppress(OSError):
            return served(site) == b"one"
        return False

    until(serves, "their successors serve")


def test_a_process_that_cannot_start_again_is_given_up_and_the_rest_goes_on(site: Machine) -> None:
    site.start("deployed:app", "--workers", "2")
    deploy(site, "two", BROKEN["lifespan"][0])
    os.kill(processes(site, "worker")["worker-00"], signal.SIGKILL)
    until(lambda: "worker-00 is not started again" in site.run("status").stdout, "it is given up", 60)
    until(lambda: "the cellar is flooded" in site.run("status").stdout, "it is told why")
    assert set(processes(site, "worker")) == {"worker-01"}
    assert served(site) == b"one"
    deploy(site, "two")
    assert site.run("reload").returncode == 0
    assert served(site) == b"two"
