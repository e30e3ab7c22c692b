"""supervisord's listening sockets."""

import signal
import socket
import subprocess
import sys

import pytest

from asgictl.supervisord import Options


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


STARTS = """
import os, signal, time
from asgictl.supervisord import Options
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
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == f"{signal.SIGTERM.value}\n"
