"""What runs of an instance that cannot be asked, as real processes."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from asgictl.config import Bind
from asgictl.control.remains import NAMED, Remains, await_free, listeners, not_running
from asgictl.control.slots import Interrupted
from asgictl.errors import AddressError
from tests.conftest import free_port

Play = Callable[..., subprocess.Popen[bytes]]
# What is called as supervisord is, and ends what it has started when it is told to.
SUPERVISORD = """
import signal, subprocess, sys
child = subprocess.Popen(["sleep", "60"])
def end(*_):
    child.kill()
    child.wait()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(flush=True)
signal.pause()
"""


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Start a process of the instance in tmp_path; uid: of another user."""
    with ExitStack() as stack:

        def start(*command: str, uid: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
            own = os.environ | {"ASGICTL_RUN_DIR": str(tmp_path)} | environment
            process = stack.enter_context(subprocess.Popen(command, env=own, user=uid, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            return process

        yield start


def test_they_are_named_as_supervisord_names_them_and_some_are_enough(play: Play, tmp_path: Path) -> None:
    processes = [play("sleep", "60", SUPERVISOR_PROCESS_NAME=f"worker-{number:02}") for number in range(NAMED + 2)]
    remains = Remains(tmp_path)
    assert len(remains) == NAMED + 2
    assert f"worker-00 ({processes[0].pid}), " in str(remains)
    assert str(remains).endswith(" and 2 more")


def test_a_supervisord_that_lives_ends_the_others_in_order_and_their_socket_goes(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    Bind(f"unix:{path}").listen().close()
    process = play(
        sys.executable, "-c", SUPERVISORD, "-m", "asgictl.control.supervisord_main", ASGICTL_SOCKET=f"unix://{path}"
    )
    assert process.stdout
    process.stdout.readline()
    remains = Remains(tmp_path)
    assert [each.pid for each in remains.supervisord] == [process.pid]
    assert len(remains) == 2
    error = not_running("shop", tmp_path)
    assert f"supervisord ({process.pid}) does not answer" in str(error)
    assert "asgictl stop" in str(error)
    remains.end()
    assert process.wait(60) == 0
    assert not Remains(tmp_path)
    assert not path.exists()


def test_without_any_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    assert str(not_running("shop", tmp_path)) == "no instance 'shop' is running; start one with asgictl start"


def test_what_is_no_socket_is_not_removed_as_one(play: Play, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    play("sleep", "60", ASGICTL_SOCKET=f"unix://{tmp_path}/precious")
    Remains(tmp_path).end()
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can play another user")
def test_a_process_of_somebody_else_is_none_whatever_its_environment_says(play: Play, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    play("/bin/sleep", "60", uid=12345, ASGICTL_SOCKET=f"unix://{tmp_path}/s")
    assert not Remains(tmp_path)


LISTENING = "import socket, sys, time; s = socket.socket(fileno=int(sys.argv[1])); print(flush=True); time.sleep(60)"


def holder(listener: socket.socket, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LISTENING, str(listener.fileno())]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=os.environ | environment, stdout=-1)
    assert process.stdout
    process.stdout.readline()
    return process


@pytest.mark.parametrize("kind", ["port", "unix"])
def test_an_address_is_free_or_held_by_them_alone(kind: str, tmp_path: Path) -> None:
    bind = Bind(f"127.0.0.1:{free_port()}" if kind == "port" else f"unix:{tmp_path}/s")
    Remains(tmp_path).check(bind)
    listener = bind.listen()
    with holder(listener, ASGICTL_RUN_DIR=str(tmp_path)) as ours:
        try:
            with pytest.raises(AddressError):  # this process holds it too
                Remains(tmp_path).check(bind)
            assert listeners(bind) == {os.getpid(), ours.pid}
            listener.close()
            Remains(tmp_path).check(bind)
        finally:
            ours.kill()
    await_free(bind, threading.Event())


def test_waiting_for_an_address_ends_when_the_start_is_given_up() -> None:
    stopping = threading.Event()
    stopping.set()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Interrupted):
        await_free(Bind(f"127.0.0.1:{taken.getsockname()[1]}"), stopping)
