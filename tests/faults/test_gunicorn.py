"""A14: two servers never have one identity; what gunicorn's own file and variable set is checked."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import Machine

START_ERROR = 8
APPLICATION = """
import os

def app(environ, start_response):
    body = f"{os.environ.get('GIVEN')} {os.path.exists('forked')}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
FORKED = """
import asyncio, os
from asgictl import Application
from asgictl.inprocess.server import InProcess
from asgictl.telemetry.controller_client import Readiness

served = InProcess(Application(http=print), None, "test", 1, Readiness(None, "server", "server"))

async def identity():
    received, sent = asyncio.Queue(), asyncio.Queue()
    lifespan = asyncio.create_task(served.lifespan(received.get, sent.put))
    received.put_nowait({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    os.write(1, f"{served._forwarder.new_id()}\\n".encode())  # at once, whatever buffers there are
    received.put_nowait({"type": "lifespan.shutdown"})
    await lifespan

for _ in range(2):  # as gunicorn does
    if not os.fork():
        asyncio.run(identity())
        os._exit(0)
for _ in range(2):
    assert os.wait()[1] == 0
"""


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory, machine.mode = tmp_path, "inprocess"
    (tmp_path / "app.py").write_text(APPLICATION)
    return machine


def started(machine: Machine) -> subprocess.CompletedProcess[str]:
    bind = f"127.0.0.1:{machine.port}"
    return machine.run("start", "app:app", "--mode", "inprocess", "--workers", "2", "--bind", bind, "-d")


def test_servers_that_fork_after_the_application_was_made_have_identities_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.split()
    assert first.partition("/")[0] != second.partition("/")[0]


@pytest.mark.parametrize(
    ("file", "variable", "refused"),
    [
        ("preload_app = True", "", "gunicorn.conf.py: preload_app cannot be set: the application is loaded in each"),
        ("chdir = '/'", "", "gunicorn.conf.py: chdir cannot be set"),
        ("control_socket = 'here'", "", "gunicorn.conf.py: control_socket cannot be set"),
        ("", "--preload", "GUNICORN_CMD_ARGS: preload_app cannot be set"),
        ("", "--user nobody", "GUNICORN_CMD_ARGS: user cannot be set"),
        ("", "-c other.py", "other.py: preload_app cannot be set"),
    ],
)
def test_what_is_refused_as_an_option_is_refused_there(
    project: Machine, file: str, variable: str, refused: str
) -> None:
    assert project.directory
    (project.directory / "gunicorn.conf.py").write_text(file)
    (project.directory / "other.py").write_text("preload_app = True")
    project.environment |= {"GUNICORN_CMD_ARGS": variable}
    done = started(project)
    assert done.returncode == START_ERROR
    assert refused in done.stderr
    assert "Traceback" not in done.stderr


def test_what_may_be_set_is_and_what_asgictl_sets_stays(project: Machine) -> None:
    assert project.directory
    config = """
bind, workers, worker_class, preload_app, timeout = "127.0.0.1:1", 7, "gthread", False, 2
raw_env = ["GIVEN=given"]

def post_fork(server, worker):
    open("forked", "w").close()
"""
    (project.directory / "gunicorn.conf.py").write_text(config)
    project.environment |= {"GUNICORN_CMD_ARGS": "--workers 9"}
    done = started(project)
    assert done.returncode == 0, done.stderr
    assert "server 2 ready" in done.stdout
    with urlopen(project.url + "/", timeout=60) as answered:
        assert answered.read() == b"given True"
    log = project.log("server-00")
    assert "gunicorn.conf.py: worker_class is not heeded: asgictl starts" in log
    assert "GUNICORN_CMD_ARGS: workers is not heeded: use --workers" in log
    assert os.environ.get("GIVEN") is None
