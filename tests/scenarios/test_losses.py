"""What becomes of an event whose worker or interface dies with it."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import connect

from asgictl.errors import FENCED_STATUS
from tests.conftest import Machine, free_port, until
from tests.scenarios.test_demo import SECONDS, closed_with, get

APPLICATION = """
import os
from pathlib import Path
from asgictl import Application, Group, path

def site(environ, start_response):
    tried = Path("tried-" + environ["PATH_INFO"].strip("/"))
    if environ["PATH_INFO"].startswith("/die") and not (environ["PATH_INFO"] == "/die-once" and tried.exists()):
        tried.write_text("x" * (len(tried.read_text()) + 1 if tried.exists() else 1))
        os._exit(9)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"lived"]

def join(message):
    message.state["name"] = message.query_string.decode()
    message.accept()
    message.join("all")

def say(message):
    if message.text == "die" or (message.text == "die once" and message.attempt == 1):
        os._exit(9)
    message.reply(text=f"{message.text}, attempt {message.attempt}, id {message.id.rpartition(':')[2]}")

def left(message):
    Group("all").send(text=f"{message.state['name']} left with {message.code}")

app = Application(http=site, websocket=[path("/ws", connect=join, receive=say, disconnect=left)])
"""


@pytest.fixture
def fragile(machine: Machine, tmp_path: Path) -> Machine:
    (tmp_path / "fragile.py").write_text(APPLICATION)
    machine.directory = tmp_path
    return machine


def test_a_frame_that_kills_workers_ends_its_own_socket_alone(fragile: Machine) -> None:
    fragile.start("fragile:app", "--workers", "2")
    with connect(fragile.ws + "/ws") as poisoned, connect(fragile.ws + "/ws") as neighbour:
        for frame in ("one", "two", "die", "never"):
            poisoned.send(frame)
        heard = [str(poisoned.recv(SECONDS)) for _ in range(2)]
        assert [line.partition(",")[0] for line in heard] == ["one", "two"]
        assert closed_with(poisoned) == 1011
        assert neighbour.recv(SECONDS) == " left with 1011"
        neighbour.send("well?")
        assert neighbour.recv(SECONDS) == "well?, attempt 1, id 0"


def test_a_frame_that_killed_one_worker_runs_again_in_order(fragile: Machine) -> None:
    fragile.start("fragile:app", "--workers", "2")
    with connect(fragile.ws + "/ws") as ws:
        frames = ["zero", "die once", "two", "three"]
        for frame in frames:
            ws.send(frame)
        heard = [str(ws.recv(SECONDS)) for _ in frames]
    assert [line.partition(",")[0] for line in heard] == frames
    assert heard[1] == "die once, attempt 2, id 1"
    assert [line.rpartition(" ")[2] for line in heard] == ["0", "1", "2", "3"]


def test_a_safe_request_runs_once_more_and_any_other_is_answered_502(fragile: Machine) -> None:
    fragile.start("fragile:app", "--workers", "1")
    assert get(fragile.url + "/die-once")[0] == 200
    assert get(fragile.url + "/die-always")[0] == 502
    assert get(fragile.url + "/die-post", b"x")[0] == 502
    assert fragile.directory
    assert (fragile.directory / "tried-die-always").read_text() == "xx"
    assert (fragile.directory / "tried-die-post").read_text() == "x"
    assert get(fragile.url + "/")[2] == b"lived"


def test_the_disconnects_of_a_killed_interface_run_once(fragile: Machine) -> None:
    """The listener sits on a second interface, which the first one's death does not touch."""
    fragile.start("fragile:app", "--workers", "2")
    port = free_port()
    url = f"unix://{fragile.runtime}/asgictl/default/redis.sock"
    second = fragile.popen("interface", "--redis", url, "--bind", f"127.0.0.1:{port}")
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/"), "the second interface serves")
        with connect(f"ws://127.0.0.1:{port}/ws?listener") as listener, ExitStack() as stack:
            sockets = [stack.enter_context(connect(f"{fragile.ws}/ws?s{n}")) for n in range(12)]
            ready = fragile.status()["ready"]
            os.kill(next(report["pid"] for report in ready if report["role"] == "interface"), signal.SIGKILL)
            assert [closed_with(ws) for ws in sockets] == [1006] * 12
            heard = sorted(str(listener.recv(SECONDS)) for _ in sockets)
            assert heard == sorted(f"s{n} left with 1006" for n in range(12))
            listener.send("any more?")
            assert listener.recv(SECONDS) == "any more?, attempt 1, id 0"
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=60)


def answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def test_an_interface_that_stood_still_past_its_lease_ends_its_sockets_once(fragile: Machine) -> None:
    """It runs alone, so that only its lease tells; when it wakes it is fenced, and adds no disconnects of its own."""
    fragile.start("fragile:app", "--workers", "2")
    port = free_port()
    url = f"unix://{fragile.runtime}/asgictl/default/redis.sock"
    second = fragile.popen("interface", "--redis", url, "--bind", f"127.0.0.1:{port}")
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/"), "the second interface serves")
        with connect(f"{fragile.ws}/ws?listener") as listener, ExitStack() as stack:
            sockets = [stack.enter_context(connect(f"ws://127.0.0.1:{port}/ws?s{n}")) for n in range(5)]
            second.send_signal(signal.SIGSTOP)
            heard = sorted(str(listener.recv(60)) for _ in sockets)
            assert heard == sorted(f"s{n} left with 1006" for n in range(5))
            second.send_signal(signal.SIGCONT)
            assert [closed_with(ws) for ws in sockets] == [1012] * 5
            second.communicate(timeout=60)
            assert second.returncode == FENCED_STATUS
            listener.send("any more?")
            assert listener.recv(SECONDS) == "any more?, attempt 1, id 0"
    finally:
        second.kill()
        second.communicate(timeout=60)
