"""Servers under measurement: asgictl's and those that people run today, each started, waited for, and stopped."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

NOTES = "DEMO_NOTES"  # names that file to the demo
COMMAND_SECONDS = 150
SERVES_SECONDS = 30
STOP_SECONDS = 60
TAIL_LINES = 12


class SideError(Exception):
    """A side did not start, or did not do as it was told; the text says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server: a command with {bind} or {port}; asgictl's goes to the background by itself.

    tree: the source tree whose modules it runs, in that directory; None: those that run here. reload: the command that
    deploys anew, with {pid} and {port}; "": a SIGHUP, or `asgictl reload`. part: in which scenarios, see PARTS.
    about: what it is, and why it is compared.
    """

    name: str
    command: str
    load: str = "/"  # a path for wrk, or ws:/path for echo clients
    tree: Path | None = None
    reload: str = ""
    part: str = "all"
    about: str = ""

    @property
    def detached(self) -> bool:
        return self.command.startswith("asgictl")


def with_threads(side: Side, threads: int | None) -> Side:
    """Return a side of asgictl's with so many threads in each process; another, or None, changes nothing."""
    command = re.sub(r"--threads \d+", f"--threads {threads}", side.command) if threads else side.command
    return replace(side, command=command)


@dataclass(frozen=True, slots=True)
class Server:
    """A side that runs. runtime: in the environment of each of its processes, by which they are found.

    tree and reload are its Side's.
    """

    port: int
    runtime: str
    leader: int | None  # the process id of one that is not asgictl's
    tree: Path | None = None
    reload: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def notes(self) -> Path:
        """The file into which the demo writes what it ran."""
        return Path(self.runtime) / "notes"

    @property
    def environment(self) -> dict[str, str]:
        environment = os.environ | {"XDG_RUNTIME_DIR": self.runtime, "PATH": search_path()}
        environment[NOTES] = str(self.notes)
        environment["SPT_NOENV"] = "1"  # gunicorn sets titles, which would take the room of the environment
        environment.pop("ASGICTL_REDIS", None)  # each side has one of its own, whose costs are seen
        return environment | ({"PYTHONPATH": str(self.tree)} if self.tree else {})

    def run(self, *command: str) -> str:
        """Run a module's command to its end; returns what it printed, raises SideError with its complaint."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command],
            env=self.environment,
            cwd=self.tree,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            start_new_session=True,  # Ctrl-C is for us: we stop the others in order
        )
        if done.returncode:
            said = done.stderr.rpartition("Error: ")[2].strip()
            raise SideError(f"{' '.join(command[:2])}: {said}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Return what `asgictl status --json` says of an instance."""
        status: dict[str, Any] = json.loads(self.run("asgictl", "status", "--json"))
        return status

    def pids(self) -> dict[str, int]:
        """Return what an asgictl instance consists of, Redis included: each process's id, by its name."""
        return {each["process"]: each["pid"] for each in self.status()["processes"]}


def search_path() -> str:
    """Return where the programs of sides are looked for: what is installed beside asgictl comes first."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Have processes, their threads and what these start stay on these cores, where the platform can."""
    if hasattr(os, "sched_setaffinity") and (kept := set(cores)):
        for pid in pids:
            with suppress(OSError):  # one has ended meanwhile
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), kept)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(side: Side, beside: Callable[[Server], None] = lambda _server: None) -> Iterator[Server]:
    """Run a side; what it is given to begins with its first answer. Raises SideError.

    beside: called before it starts, with a Server of which all but the leader is known.
    """
    port = free_port()
    command = shlex.split(side.command.replace("{bind}", f"127.0.0.1:{port}").replace("{port}", str(port)))
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as runtime, ExitStack() as stopping:
        server, started, log = Server(port, runtime, None, side.tree), None, Path(runtime) / "log"
        beside(server)
        if side.detached:
            stopping.callback(_kill_left, Path(runtime) / "asgictl" / "default")
            server.run(*command)
            stopping.callback(server.run, "asgictl", "stop")
        else:
            try:
                with log.open("wb") as output:
                    started = subprocess.Popen(
                        command, env=server.environment, cwd=side.tree, stdout=output, stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )  # fmt: skip
            except OSError as error:
                raise SideError(f"{command[0]}: {error.strerror}") from error
            stopping.callback(end, started)
            server = Server(port, runtime, started.pid, side.tree, side.reload)
        wait_until_it_serves(server.url, side.load, started, log)
        yield server


def _kill_left(run_dir: Path) -> None:
    """Kill what a start or a stop that failed has left of an instance."""
    from asgictl.machine.processes import kill, orphans  # psutil: not before something is measured

    kill(orphans(run_dir))


def wait_until_it_serves(url: str, load: str, started: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Wait for a first answer, which may not be an error; a WebSocket server is only connected to."""
    deadline = time.monotonic() + SERVES_SECONDS
    while True:
        try:
            if load.startswith("ws:"):
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 1).close()
            else:
                urllib.request.urlopen(url + load, timeout=5).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            raise SideError(f"{load} was answered {error.code} {error.reason}") from error
        except OSError as error:
            if time.monotonic() > deadline or (started and started.poll() is not None):
                said = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if started else str(error)
                what = "ended" if started and started.poll() is not None else f"did not answer in {SERVES_SECONDS} s"
                raise SideError(f"it {what} ({url}):\n{said}") from error
            time.sleep(0.05)
        else:
            return


def end(process: subprocess.Popen[bytes], *signals: int) -> None:
    """End the leader of a session and all that it started, which may have outlived it; gently first."""
    for number in signals or (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
