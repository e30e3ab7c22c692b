"""A14: two servers never have one identity; what gunicorn's own file and variable set is checked."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import Machine

USAGE_ERROR, START_ERROR = 2, 8
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
        (
            "preload_app, workers, accesslog, bind = True, 7, '-', '127.0.0.1:1'",
            "--workers 9 -k gthread",
            [
                "Error: gunicorn.conf.py: accesslog cannot be set: use --access-log",
                "gunicorn.conf.py: bind cannot be set: use --bind",
                "gunicorn.conf.py: preload_app cannot be set: each process loads the application itself",
                "gunicorn.conf.py: workers cannot be set: use --workers",
                "GUNICORN_CMD_ARGS: worker_class cannot be set: WSGI runs in threads, ASGI on an event loop: there is"
                " nothing to choose",
                "GUNICORN_CMD_ARGS: workers cannot be set: use --workers",
            ],
        ),
        ("chdir = '/'", "", ["Error: gunicorn.conf.py: chdir cannot be set: use --app-dir"]),
        ("", "--user nobody", ["Error: GUNICORN_CMD_ARGS: user cannot be set: start asgictl as that user"]),
        ("", "-c other.py", ["Error: other.py: preload_app cannot be set: each process loads the application itself"]),
        (
            "timeout = 'soon'",
            "",
            ["Error: Invalid value for timeout: soon", "invalid literal for int() with base 0: 'soon'"],
        ),
    ],
    ids=["many", "chdir", "user", "other file", "value"],
)
def test_all_mistakes_are_told_once_before_any_process_starts(
    project: Machine, file: str, variable: str, refused: list[str]
) -> None:
    assert project.directory
    (project.directory / "gunicorn.conf.py").write_text(file)
    (project.directory / "other.py").write_text("preload_app = True")
    project.environment |= {"GUNICORN_CMD_ARGS": variable}
    done = started(project)
    assert (done.returncode, done.stderr.splitlines()) == (USAGE_ERROR, refused)
    assert project.pids() == []


def test_a_file_that_fails_is_told_with_its_traceback(project: Machine) -> None:
    assert project.directory
    (project.directory / "gunicorn.conf.py").write_text("workers = 1 / 0")
    done = started(project)
    assert done.returncode == USAGE_ERROR
    assert "Failed to read config file" in done.stderr
    assert done.stderr.count("ZeroDivisionError") == 1


def test_a_deploy_with_a_file_that_is_refused_changes_nothing(project: Machine) -> None:
    assert project.directory
    assert started(project).returncode == 0
    (project.directory / "gunicorn.conf.py").write_text("preload_app, threads = True, 3")
    done = project.run("reload")
    assert done.returncode == START_ERROR
    assert "preload_app cannot be set" in done.stderr
    assert "threads cannot be set: use --threads" in done.stderr
    with urlopen(project.url + "/", timeout=10) as answered:
        assert answered.status == 200


def test_in_split_mode_neither_is_read_and_start_says_so(machine: Machine, tmp_path: Path) -> None:
    machine.directory = tmp_path
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text("workers = 1 / 0")
    machine.environment |= {"GUNICORN_CMD_ARGS": "--workers 9"}
    done = machine.run("start", "app:app", "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", "-d")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "warning: gunicorn.conf.py is not read in split mode",
        "warning: GUNICORN_CMD_ARGS is not read in split mode",
    ]


def test_what_may_be_set_is(project: Machine) -> None:
    assert project.directory
    config = """
preload_app, timeout = False, 2
raw_env = ["GIVEN=given"]

def post_fork(server, worker):
    open("forked", "w").close()
"""
    (project.directory / "gunicorn.conf.py").write_text(config)
    done = started(project)
    assert done.returncode == 0, done.stderr
    assert "server 2 ready" in done.stdout
    with urlopen(project.url + "/", timeout=60) as answered:
        assert answered.read() == b"given True"
    assert os.environ.get("GIVEN") is None
