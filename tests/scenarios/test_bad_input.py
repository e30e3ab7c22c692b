"""A user's mistakes: one clear message, a documented exit status, and nothing left running (the fixture looks)."""

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import redis

from asgictl.control.deploys import pings
from asgictl.control.preflight import find_redis_server
from tests.conftest import DEADLINE, MODES, Machine, free_port, until
from tests.scenarios.test_demo import get

TARGETS = {
    "nocolon": ("TARGET 'nocolon' is not of the form module:attribute", 3),
    "nowhere:app": ("there is no module 'nowhere'", 3),
    "good:nothing": ("module 'good' has no attribute 'nothing'", 3),
    "good:number": ("is int, neither an Application nor a WSGI or ASGI callable", 3),
    "good:three": ("takes neither (environ, start_response)", 3),
    "broken:app": ("ZeroDivisionError: division by zero", 3),
    "syntax:app": ("SyntaxError", 3),
    "needs:app": ("No module named 'surely_not_installed'", 3),
    "quits:app": ("SystemExit: 3", 3),
    "hard:app": ("ended before it was ready", 8),
}
MODULES = {
    "good": "number = 3\ndef three(a, b, c, d): ...\n",
    "broken": "def fail():\n    return 1 / 0\n\nfail()\n",
    "syntax": "def (:\n",
    "needs": "import surely_not_installed\n",
    "quits": "raise SystemExit(3)\n",
    "hard": "import os\nos._exit(9)\n",
}


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    for name, source in MODULES.items():
        (machine.directory / f"{name}.py").write_text(source)
    return machine


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_cannot_serve(project: Machine, mode: str, target: str) -> None:
    text, status = TARGETS[target]
    done = project.run("start", target, "--mode", mode, "--workers", "1", "--bind", f"127.0.0.1:{project.port}")
    assert text in done.stderr
    assert done.returncode == status
    assert "asgictl/" not in done.stderr  # the traceback is theirs, not ours
    assert "importlib" not in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_port_in_use(machine: Machine, mode: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", machine.port))
        taken.listen()
        done = machine.run("start", "--mode", mode, "--bind", f"127.0.0.1:{machine.port}")
    assert done.returncode == 4
    assert f"cannot listen on 127.0.0.1:{machine.port}: Address already in use" in done.stderr


def test_already_running_and_not_running(machine: Machine) -> None:
    assert machine.run("status").returncode == 7
    assert machine.run("stop").returncode == 7
    machine.start("--workers", "1")
    again = machine.run("start", "--bind", f"127.0.0.1:{free_port()}")
    assert again.returncode == 6
    assert "instance 'default' is already running: asgictl reload deploys new code" in again.stderr
    assert machine.run("status").returncode == 0


EARLY = """
import logging
logging.getLogger("early").warning("said at import")
def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_foreground_start_shows_what_was_logged_before_all_were_ready(
    machine: Machine, tmp_path: Path, mode: str
) -> None:
    machine.directory = tmp_path
    (tmp_path / "early.py").write_text(EARLY)
    told = ("--mode", mode, "--workers", "1", "--name", "shop", "--bind", f"127.0.0.1:{machine.port}")
    process = machine.popen("start", "early:app", *told)
    bound = threading.Timer(DEADLINE, process.send_signal, (signal.SIGINT,))
    bound.start()
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if "said at import" in line:
            break
    bound.cancel()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert "said at import" in said[-1]
    assert "Ctrl-C drains and stops · asgictl status --name shop\n" in said, "a command names the instance"


class Server:
    """A redis-server of the test's own."""

    def __init__(self, machine: Machine, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [find_redis_server(), "--port", str(self.port), "--save", "", *options],
            cwd=machine.runtime,
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> "Server":
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens, "Redis listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)


def test_redis_that_cannot_be_reached(machine: Machine) -> None:
    done = machine.run("start", "--redis", f"redis://user:s3cret@127.0.0.1:{free_port()}")
    assert done.returncode == 5
    assert "check that it is running and that --redis is right" in done.stderr
    assert "s3cret" not in done.stderr


def test_redis_that_wants_a_password(machine: Machine) -> None:
    with Server(machine, "--requirepass", "s3cret") as server:
        done = machine.run("start", "--redis", server.url)
        assert done.returncode == 5
        assert "needs a password" in done.stderr
        right = server.url.replace("//", "//:s3cret@")
        assert machine.start("--redis", right, "--workers", "1")
        machine.stop()


def test_redis_that_evicts(machine: Machine) -> None:
    with Server(machine, "--maxmemory-policy", "allkeys-lru") as server:
        done = machine.run("start", "--redis", server.url)
    assert done.returncode == 5
    assert "maxmemory-policy" in done.stderr


def test_an_external_redis_is_used_and_left_running(machine: Machine) -> None:
    with Server(machine) as server:
        assert "redis 1 external" in machine.start("--redis", server.url, "--workers", "1")
        machine.stop()
        assert pings(server.url)
        with redis.Redis.from_url(server.url) as client:
            assert not [key for key in client.scan_iter() if b":re:" in key or b":turns:" in key]


def test_a_start_that_is_interrupted_leaves_nothing(project: Machine) -> None:
    assert project.directory
    (project.directory / "slow.py").write_text("import time\ntime.sleep(60)\n")
    process = project.popen("start", "slow:app", "--bind", f"127.0.0.1:{project.port}")
    until(lambda: list(project.runtime.rglob("worker-00.log")), "the worker starts")
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 45, "it waited for what never becomes ready"


@pytest.mark.parametrize("mode", MODES)
def test_modules_of_the_user_may_be_named_like_dependencies(machine: Machine, tmp_path: Path, mode: str) -> None:
    for name in ("click", "redis", "websockets", "gunicorn", "supervisor", "worker", "interface"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "mine.py").write_text("def app(environ, start):\n    start('200 OK', [])\n    return [b'mine']\n")
    command = ["-P", "-m", "asgictl", "start", "mine:app", "--mode", mode, "--bind", f"127.0.0.1:{machine.port}", "-d"]
    done = subprocess.run(
        [machine.python, *command], env=machine.environment, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert get(machine.url + "/")[2] == b"mine"
