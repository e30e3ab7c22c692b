"""Servers under measurement: asgictl's and those that people run today, each started, waited for, and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

APPLICATIONS = "loadtests.applications"
MARK = "ASGICTL_BENCH"  # in the environment of every process of a server
COMMAND_SECONDS = 150


@dataclass(frozen=True, slots=True)
class Side:
    """A server: a command with {bind}, and whether it is asgictl's (which goes to the background by itself)."""

    name: str
    command: str
    load: str = "/"  # a path for wrk, or ws:/path for echo clients

    @property
    def detached(self) -> bool:
        return self.command.startswith("asgictl")


def split(target: str, load: str = "/", *, workers: int = 1, options: str = "") -> Side:
    name = f"split, {workers} worker{'s' if workers > 1 else ''}"
    return Side(name, f"asgictl start {APPLICATIONS}:{target} --workers {workers} --bind {{bind}} -d {options}", load)


def uvicorn(target: str, load: str = "/") -> Side:
    options = "--host 127.0.0.1 --port {port} --log-level warning --no-access-log --ws websockets-sansio"
    return Side("uvicorn", f"uvicorn {APPLICATIONS}:{target} {options} --ws-per-message-deflate false", load)


@dataclass(frozen=True, slots=True)
class Server:
    """A side that runs. environment: its processes', by which asgictl's commands find it."""

    port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str) -> str:
        """Run a module's command to its end; returns what it printed, raises RuntimeError with its complaint."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.rpartition('Error: ')[2].strip()}")
        return done.stdout

    def pids(self) -> dict[str, int]:
        """Return what an asgictl instance consists of, Redis included: each process's id, by its name."""
        return {
            each["process"]: each["pid"] for each in json.loads(self.run("asgictl", "status", "--json"))["processes"]
        }


@contextmanager
def serving(side: Side) -> Iterator[Server]:
    """Run a side; what it is given to begins with its first answer. Raises RuntimeError when it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = side.command.format(bind=f"127.0.0.1:{port}", port=port).split()
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as runtime, ExitStack() as stopping:
        server = Server(port, os.environ | {MARK: "1", "XDG_RUNTIME_DIR": runtime})
        if side.detached:
            server.run(*command)
            stopping.callback(server.run, "asgictl", "stop")
        else:
            python = [sys.executable, "-m", *command]
            started = subprocess.Popen(
                python, env=server.environment, stdout=subprocess.DEVNULL, start_new_session=True
            )
            stopping.callback(end, started)
        wait_until_it_serves(server.url, side.load)
        yield server


def wait_until_it_serves(url: str, load: str) -> None:
    """Wait for a first answer, whatever its status; a WebSocket server is only connected to."""
    deadline = time.monotonic() + 30
    while True:
        try:
            if load.startswith("ws:"):
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 1).close()
            else:
                urllib.request.urlopen(url + load, timeout=5).close()  # noqa: S310
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def end(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a session and all that it started."""
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)
