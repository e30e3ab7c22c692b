"""Workers: how long an event may run, which channels a worker serves, when it is replaced, what it hands back."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.conftest import Machine, until
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_http import client

APPLICATION = """
import os, time
from asgictl import Application, Group, path

def site(environ, start_response):
    if environ["PATH_INFO"].startswith(("/hang", "/slow/hang")):
        time.sleep(600)
    if environ["PATH_INFO"] == "/pause":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

def join(message):
    message.accept()
    message.join("all")

def say(message):
    if message.text == "hang":
        message.reply(text="wait", immediately=True)
        Group("all").send(text="all wait", immediately=True)
        time.sleep(600)
    if message.text == "die":
        os._exit(9)
    message.reply(text=f"{message.text} {os.getpid()}")

app = Application(
    http=site,
    websocket=[path("/ws", connect=join, receive=say), path("/once", receive=say, at_most_once=True)],
    pools={"/slow": "slow"},
)
"""


@pytest.fixture
def pooled(machine: Machine, tmp_path: Path) -> Machine:
    (tmp_path / "pooled.py").write_text(APPLICATION)
    machine.directory = tmp_path
    return machine


def workers(machine: Machine) -> set[int]:
    ready = machine.status()["ready"]
    return {int(report["pid"]) for report in ready if report["role"] == "worker"}


def statuses(url: str, count: int) -> list[int]:
    """Ask for a URL as often at once."""
    with ThreadPoolExecutor(count) as asking:
        return [status for status, _, _ in asking.map(get, [url] * count)]


def test_a_request_that_runs_too_long_ends_its_worker_and_is_kept(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "1", "--timeout", "1.5")
    before = workers(pooled)
    assert get(pooled.url + "/hang?q=1")[0] == 504
    until(lambda: workers(pooled) - before, "another worker is ready")
    assert get(pooled.url + "/")[0] == 200
    line = pooled.run("dead-letters", "list").stdout
    assert "http.request  GET /hang  its handler took longer than 1.5 s" in line
    id = line.split()[0]
    assert "host: 127.0.0.1" in pooled.run("dead-letters", "show", id).stdout
    until(lambda: "time.sleep(600)" in pooled.log("worker-00"), "its stack is logged")
    assert pooled.run("dead-letters", "purge", id).stdout == "1 deleted\n"
    empty = pooled.run("dead-letters", "list")
    assert (empty.stdout, empty.stderr) == ("", "no dead letters\n")
    assert pooled.run("dead-letters", "show", id).returncode == 5


def test_a_frame_that_runs_too_long_ends_its_socket_alone(pooled: Machine) -> None:
    """What was sent immediately has arrived, and the neighbours' frames run elsewhere."""
    pooled.start("pooled:app", "--workers", "1", "--threads", "2", "--timeout", "1.5")
    with connect(pooled.ws + "/ws") as stuck, connect(pooled.ws + "/ws") as neighbour:
        stuck.send("hang")
        assert {stuck.recv(SECONDS), stuck.recv(SECONDS)} == {"wait", "all wait"}
        assert neighbour.recv(SECONDS) == "all wait"
        assert closed_with(stuck) == 1011
        for number in range(5):
            neighbour.send(str(number))
            assert str(neighbour.recv(SECONDS)).split()[0] == str(number)
    assert (
        "frame 0: 'hang'"
        in pooled.run("dead-letters", "show", pooled.run("dead-letters", "list").stdout.split()[0]).stdout
    )


def test_a_worker_that_has_served_enough_is_replaced_and_no_socket_notices(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "2", "--max-events", "50")
    seen: set[str] = set()
    with connect(pooled.ws + "/ws") as ws:
        deadline = time.monotonic() + 200
        number = 0
        while len(seen) < 5 and time.monotonic() < deadline:
            number += 1
            ws.send(str(number))
            said, pid = str(ws.recv(SECONDS)).split()
            assert said == str(number)
            seen.add(pid)
            assert get(pooled.url + "/")[0] == 200
    assert len(seen) >= 5


def test_a_worker_that_has_grown_too_much_is_replaced(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "1", "--max-memory-mib", "10")
    before = workers(pooled)
    until(lambda: workers(pooled) - before, "it is replaced")
    until(lambda: "ends and is replaced" in pooled.log("worker-00"), "the log says so")


def test_slow_paths_have_a_pool_of_their_own(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "1", "--exclude-channels", "*.slow")
    url = f"unix://{pooled.runtime}/asgictl/default/redis.sock"
    slow = pooled.popen("worker", "pooled:app", "--redis", url, "--only-channels", "*.slow")
    try:
        pid = get(pooled.url + "/slow")[2]
        assert pid == str(slow.pid).encode()
        with client(pooled) as stuck:
            stuck.send("GET /slow/hang HTTP/1.1")
            served = {str(pid).encode() for pid in workers(pooled)}
            assert all(get(pooled.url + "/")[2] in served for _ in range(20))
    finally:
        slow.kill()
        slow.communicate(timeout=60)


def test_globs_that_leave_nothing_are_a_named_error(pooled: Machine) -> None:
    done = pooled.run("start", "pooled:app", "--bind", f"127.0.0.1:{pooled.port}", "--only-channels", "nope", "-d")
    assert done.returncode == 3
    assert "http.request, http.request.slow, websocket.connect, websocket.receive" in done.stderr


def test_a_slow_request_keeps_no_other_waiting(pooled: Machine) -> None:
    """What a worker holds when its handler turns out to be slow goes to the other."""
    pooled.start("pooled:app", "--workers", "2", "--timeout", "0")
    for _ in range(50):
        get(pooled.url + "/")  # fast, so both hold many at a time from now on
    with client(pooled) as stuck:
        stuck.send("GET /hang HTTP/1.1")
        assert statuses(pooled.url + "/", 40) == [200] * 40
    for pid in workers(pooled):
        os.kill(pid, signal.SIGKILL)  # else stopping would wait for the one that hangs


def test_what_may_not_run_twice_is_given_up_and_its_socket_lives(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "2")
    with connect(pooled.ws + "/once") as ws:
        for frame in ("one", "die", "three"):
            ws.send(frame)
        assert [str(ws.recv(SECONDS)).split()[0] for _ in range(2)] == ["one", "three"]
    until(lambda: "its worker died, attempt 1" in pooled.run("dead-letters", "list").stdout, "it is kept")


def test_a_worker_that_stops_hands_back_what_it_has_not_started(pooled: Machine) -> None:
    pooled.start("pooled:app", "--workers", "2")
    stopped = next(iter(workers(pooled)))
    with ThreadPoolExecutor() as killing:
        killing.submit(os.kill, stopped, signal.SIGTERM)
        assert statuses(pooled.url + "/pause", 8) == [200] * 8
