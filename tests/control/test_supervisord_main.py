"""supervisord's listening sockets."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from supervisor import loggers

from asgictl.control.supervisord_main import Options, spare_logs


def parsed(url: str) -> socket.socket:
    listener: socket.socket = Options().parse_fcgi_socket(url, None, None, None, 5).create_and_bind()
    return listener


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_a_socket_is_bound_whichever_family_its_address_is_of(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with parsed(f"tcp://{address}:{port}") as listener:
        assert listener.getsockname()[:2] == (address.strip("[]"), port)


def test_a_file_is_supervisords_own() -> None:
    assert Options().parse_fcgi_socket("unix:///tmp/x.sock", None, None, None, 5).url == "unix:///tmp/x.sock"


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in (
        (loggers.Handler, "handleError"),
        (loggers.Handler, "close"),
        (loggers.RotatingFileHandler, "doRollover"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it comes back afterwards
    spare_logs()


class FullStderr:
    def write(self, _text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("spared")
def test_a_log_on_a_full_disk_loses_lines_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullStderr())
    logger = loggers.getLogger()
    loggers.handle_file(logger, "/dev/full", "%(message)s", rotating=False)
    path = tmp_path / "x.log"
    loggers.handle_file(logger, str(path), "%(message)s\n", rotating=True, maxbytes=100, backups=1)
    for number in range(3):
        logger.info(f"{number}" * 20)
    assert path.read_text().splitlines()[-1] == "2" * 20
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *_: FullStderr().write(""))
    for _ in range(10):
        logger.info("x" * 60)
    monkeypatch.setattr(os, "rename", rename)
    logger.info("room again")
    logger.info("and on")
    assert "and on" in path.read_text()
    logger.close()


STARTS = """
import os, signal, time
from asgictl.control.supervisord_main import Options
options = Options()
options.setsignals()
pid = options.fork()
if not pid:
    time.sleep(10)  # in the place of what comes before exec
    os._exit(1)
os.kill(pid, signal.SIGTERM)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
"""


def test_a_child_that_is_told_to_end_before_it_runs_its_program_ends() -> None:
    """With supervisord's handlers it would go on, and supervisord wait for as long as a worker may drain."""
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{signal.SIGTERM.value}\n"


LEAVES = """
import os, select, subprocess, sys, time
from asgictl.control.supervisord_main import Options, groups
options = Options()
left = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
leader = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid; sys.stdin.read()"
ours = subprocess.Popen([sys.executable, "-c", leader, left], stdin=-1, stdout=-1, process_group=0)
ours.stdout.readline()
ours.stdin.close()
while options.waitpid()[0] != ours.pid:
    time.sleep(0.01)
if sys.argv[1] == "finish":
    groups.finish()
while True:  # until nothing holds the other end
    options.waitpid()
    if not select.select([ours.stdout], [], [], 0.05)[0]:
        continue
    if not os.read(ours.stdout.fileno(), 1):
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["finish", "go on"])
def test_what_a_process_leaves_in_its_group_ends_although_it_ignores_sigterm(how: str) -> None:
    """While supervisord goes on, and when it ends itself."""
    subprocess.run([sys.executable, "-c", LEAVES, how], check=True, timeout=60)
