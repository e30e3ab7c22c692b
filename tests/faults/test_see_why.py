"""What hangs or is missing says so: at the start, and while it serves."""

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Machine, is_listening, until
from tests.faults.conftest import Serve, both_modes, exchange, kill, readiness, request, status_of

APP = """
    import time

    from asgictl import Application


    def site(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(25)
        start_response("200 OK", [])
        return [b"x"]


    app = Application(http=site, pools={"/reports": "slow"})
"""
HANGS = "import time\n\n\ndef wait_for_the_database():\n    time.sleep(100)\n\n\nwait_for_the_database()\n"
ENDS = {"zero": "import os\n\nos._exit(0)\n", "nine": "import os\n\nos._exit(9)\n"}


def started(
    machine: Machine, directory: Path, source: str, mode: str, seconds: int
) -> "subprocess.CompletedProcess[str]":
    (directory / "app.py").write_text(source)
    machine.directory = directory
    bind = f"127.0.0.1:{machine.port}"
    options = ["--workers", "1", "--start-seconds", str(seconds), "--bind", bind, "-d"]
    return machine.run("start", "app:app", "--mode", mode, *options)


@pytest.mark.soak
@both_modes
def test_an_import_that_hangs_says_where(machine: Machine, mode: str, tmp_path: Path) -> None:
    """C20: the stack at the deadline."""
    done = started(machine, tmp_path, HANGS, mode, 5)
    assert done.returncode == 8
    assert "wait_for_the_database" in done.stderr


@pytest.mark.parametrize("how", ENDS)
@both_modes
def test_an_import_that_ends_the_process_says_how(machine: Machine, mode: str, how: str, tmp_path: Path) -> None:
    """C20: the exit status."""
    done = started(machine, tmp_path, ENDS[how], mode, 30)
    assert done.returncode == 8
    assert f"status {'0' if how == 'zero' else '9'}" in done.stderr


@pytest.mark.soak
@both_modes
def test_a_second_interrupt_forces(machine: Machine, mode: str, tmp_path: Path) -> None:
    """C20."""
    (tmp_path / "app.py").write_text(APP.replace("\n    ", "\n"))
    machine.directory = tmp_path
    bind = f"127.0.0.1:{machine.port}"
    with machine.popen("start", "app:app", "--mode", mode, "--workers", "1", "--bind", bind) as running:
        until(lambda: is_listening(machine.port), "it listens")
        until(lambda: status_of(exchange(machine, request(b"/"))) == 200, "it serves")
        with socket.create_connection(("127.0.0.1", machine.port)) as client:
            client.sendall(request(b"/slow"))
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            time.sleep(1)
            running.send_signal(signal.SIGINT)
            try:
                running.wait(20)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
                kill(machine)
                running.kill()
        running.communicate()
    assert ended


@pytest.mark.soak
def test_a_channel_that_nobody_serves_is_named(serve: Serve) -> None:
    """C9: in `status`, the log and /readyz, once an event has waited for 10 s."""
    machine = serve(APP, "--workers", "1", "--exclude-channels", "*.slow")
    with socket.create_connection(("127.0.0.1", machine.port)) as client:
        client.sendall(request(b"/reports"))
        time.sleep(12)
        warnings = machine.status()["warnings"]
        log = machine.log("controller")
        status, ready = readiness(machine)
    assert [each for each in (" ".join(warnings), log, ready) if "http.request.slow" not in each] == []
    assert status == 200, "all else is served"


def test_a_worker_alone_says_what_it_serves_and_that_no_interface_is_there(
    machine: Machine, url_of_valkey: str, tmp_path: Path
) -> None:
    """C10."""
    (tmp_path / "app.py").write_text(APP.replace("\n    ", "\n"))
    machine.directory = tmp_path
    lines: list[str] = []
    with machine.popen("worker", "app:app", "--redis", url_of_valkey, "--name", "lonely") as running:
        assert running.stdout is not None
        reading = threading.Thread(target=lambda: lines.extend(running.stdout or ()))
        reading.start()
        try:
            for words in ("http.request", "lonely", "no interface"):
                until(lambda: words in "".join(lines), f"it says {words}")  # noqa: B023 - not kept
        finally:
            running.terminate()
            running.wait(60)
            reading.join()
