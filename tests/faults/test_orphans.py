"""What a killed supervisord leaves: it serves on, until a stop, or a start that can take its place."""

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import MODES, Machine, free_port, is_listening, new_machine, until
from tests.faults.conftest import both_modes

DIED = 14
SITE = """
import os, signal, socket, subprocess, time

def listens(number):
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False

def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/fork" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(300)
        os._exit(0)
    if environ["PATH_INFO"] == "/daemon":
        held = next(number for number in range(64) if listens(number))
        return [b"%d" % subprocess.Popen(["sleep", "300"], env={}, pass_fds=[held]).pid]
    return [CONTENT]
"""


@pytest.fixture
def site(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    deploy(machine, "one")
    return machine


def deploy(machine: Machine, content: str) -> None:
    assert machine.directory
    (machine.directory / "site_app.py").write_text(f"CONTENT = {content.encode()!r}\n{SITE}")


def said(machine: Machine, path: str = "/") -> bytes:
    with urllib.request.urlopen(machine.url + path, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def run_dir(machine: Machine) -> Path:
    return machine.runtime / "asgictl" / "default"


def kill_supervisord(machine: Machine) -> list[int]:
    """Kill it, and return what it has left."""
    pid = int((run_dir(machine) / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)

    def is_dead() -> bool:
        return f"/{pid}/" not in "".join(f"/{each}/" for each in machine.pids())

    until(is_dead, "supervisord is dead")
    return machine.pids()


def start(machine: Machine, *arguments: str, target: str = "site_app:app") -> subprocess.CompletedProcess[str]:
    return machine.run("start", target, "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", "-d", *arguments)


@contextmanager
def foreground(machine: Machine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start in the foreground; wait until it is ready."""
    process = machine.popen(
        "start", "site_app:app", "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", *arguments
    )
    assert process.stdout
    until(lambda: "Ctrl-C drains" in process.stdout.readline(), "ready")  # type: ignore[union-attr]
    with process:
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize(
    ("mode", "after", "arguments"),
    [("split", "stop", ()), ("inprocess", "start", ()), ("split", "start", ("--reload",)), ("inprocess", "stop", ())],
)
def test_a4_in_the_foreground_it_serves_on_too_and_the_next_command_cleans_up(
    site: Machine, mode: str, after: str, arguments: tuple[str, ...]
) -> None:
    with foreground(site, "--mode", mode, *arguments) as process:
        pid = int((run_dir(site) / "supervisord.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == DIED, output
    line = output.splitlines()[-1]
    assert line.startswith("Error: supervisord was killed by SIGKILL; asgictl stop ends the processes that still serve")
    assert run_dir(site).is_dir()
    left = set(site.pids())
    assert said(site) == b"one"
    deploy(site, "two")
    done = start(site, "--mode", mode) if after == "start" else site.run("stop")
    assert done.returncode == 0, done.stderr
    assert not left & set(site.pids())
    if after == "start":
        assert said(site) == b"two"


@both_modes
def test_a4_ctrl_c_once_supervisord_was_killed_ends_what_is_left(site: Machine, mode: str) -> None:
    with foreground(site, "--mode", mode) as process:
        process.send_signal(signal.SIGSTOP)  # so that it notices both at once
        os.kill(int((run_dir(site) / "supervisord.pid").read_text()), signal.SIGKILL)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert site.pids() == []
        assert not run_dir(site).exists()


def test_a4_a_foreground_start_that_is_late_leaves_the_instance_after_it_alone(site: Machine) -> None:
    address = site.runtime / "site.sock"
    with foreground(site, "--bind", f"unix:{address}") as process:
        process.send_signal(signal.SIGSTOP)
        assert site.run("stop").returncode == 0
        done = start(site, "--bind", f"unix:{address}")
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert site.run("status").returncode == 0
        assert address.is_socket()


@both_modes
@pytest.mark.parametrize("detach", [True, False])
def test_a4_killed_while_it_starts_nothing_is_left(site: Machine, mode: str, detach: bool) -> None:
    assert site.directory
    (site.directory / "slow.py").write_text(
        "import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(60)\napp = print\n"
    )
    arguments = ("-d",) if detach else ()
    # Two workers: in-process with one, the importing begins before supervisord does.
    process = site.popen(
        *("start", "slow:app", "--mode", mode, "--workers", "2", "--bind", f"127.0.0.1:{site.port}"), *arguments
    )
    until((site.directory / "importing").exists, "a worker starts")
    os.kill(int((run_dir(site) / "supervisord.pid").read_text()), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 8
    assert output == "Error: supervisord was killed by SIGKILL before all processes were ready\n"
    assert site.pids() == []
    assert not run_dir(site).exists()


@pytest.fixture(scope="module", params=MODES)
def orphaned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A site whose supervisord was killed; each test must leave it serving."""
    with ExitStack() as stack:
        machine = stack.enter_context(new_machine())
        machine.directory, machine.mode = tmp_path_factory.mktemp("site"), request.param
        deploy(machine, "one")
        done = start(machine, "--mode", machine.mode)
        assert done.returncode == 0, done.stderr
        kill_supervisord(machine)
        yield machine


def test_a19_what_cannot_start_leaves_what_serves(orphaned: Machine) -> None:
    """Each with the exit status of what keeps it from starting."""
    assert orphaned.directory
    (orphaned.directory / "broken.py").write_text("import nowhere\n")
    left, files = set(orphaned.pids()), sorted(run_dir(orphaned).rglob("*"))
    mode = ("--mode", orphaned.mode)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for status, words, done in [
            (3, "nowhere", start(orphaned, *mode, target="broken:app")),
            (3, "no module 'absent'", start(orphaned, *mode, target="absent:app")),
            (4, "cannot listen", start(orphaned, *mode, "--bind", f"127.0.0.1:{port}")),
            (4, "cannot listen", start(orphaned, *mode, "--admin-port", port)),
            (5, "Redis", start(orphaned, *mode, "--redis", f"redis://127.0.0.1:{free_port()}")),
        ]:
            assert (done.returncode, words in done.stderr) == (status, True), done.stderr
            assert said(orphaned) == b"one"
    (orphaned.directory / "slow.py").write_text(
        "import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(60)\n"
    )
    process = orphaned.popen("start", "slow:app", *mode, "--bind", f"127.0.0.1:{orphaned.port}", "-d")
    until((orphaned.directory / "importing").exists, "it is being imported")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert said(orphaned) == b"one"
    assert set(orphaned.pids()) == left
    assert sorted(run_dir(orphaned).rglob("*")) == files


def test_a19_an_address_that_somebody_else_holds_too_would_not_be_free_once_they_end(site: Machine) -> None:
    """A daemon that a handler has started with the listening socket, and that has left our environment."""
    done = start(site, "--mode", "inprocess")
    assert done.returncode == 0, done.stderr
    daemon = int(said(site, "/daemon"))
    try:
        kill_supervisord(site)
        done = start(site, "--mode", "inprocess")
        assert (done.returncode, "cannot listen" in done.stderr) == (4, True), done.stderr
        assert said(site) == b"one"
    finally:
        os.kill(daemon, signal.SIGKILL)


@both_modes
def test_a19_a_child_that_listens_still_is_waited_for(site: Machine, mode: str) -> None:
    done = start(site, "--mode", mode)
    assert done.returncode == 0, done.stderr
    assert said(site, "/fork") == b"one"
    left = kill_supervisord(site)
    deploy(site, "two")
    done = start(site, "--mode", mode)
    assert done.returncode == 0, done.stderr
    assert f"ended {len(left)} processes" in done.stderr
    assert said(site) == b"two"
    assert not set(left) & set(site.pids())


@both_modes
def test_a19_the_address_may_change_with_the_start_that_takes_its_place(site: Machine, mode: str) -> None:
    """To a Unix socket and back: the old one is not left."""
    address = site.runtime / "site.sock"
    for bind in (f"unix:{address}", f"127.0.0.1:{site.port}"):
        done = start(site, "--mode", mode, "--bind", bind)
        assert done.returncode == 0, done.stderr
        kill_supervisord(site)
    assert not address.exists()
    assert said(site) == b"one"
    assert site.run("stop").returncode == 0
    assert not is_listening(site.port)


def test_a22_status_names_what_a_killed_supervisord_left(site: Machine) -> None:
    done = start(site)
    assert done.returncode == 0, done.stderr
    left = kill_supervisord(site)
    status = site.run("status")
    assert status.returncode == 7
    assert all(str(pid) in status.stderr for pid in left)
    assert "worker-00 (" in status.stderr
    assert json.loads((run_dir(site) / "instance.json").read_text())["target"] == "site_app:app"
