"""What is done to servers in mid-run: a deploy, and the death of each process that a side depends on."""

import os
import shlex
import signal
import subprocess
import threading
import time
import urllib.request

import psutil

from asgictl.loadtests.run import Happening
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.servers import Server, SideError
from asgictl.loadtests.usage import Usage, connected
from asgictl.machine.processes import asked

FIRST_SECONDS = 2.5  # into the run
APART_SECONDS = 5.0
HOLD_SECONDS = 60
DIES_SECONDS = 2.0  # that a server has to end of a signal which it does not understand
ROLES: dict[str, tuple[str, ...]] = {
    "application": ("worker", "server"),
    "connections": ("interface", "server"),
    "redis": ("redis",),
}
NAMES = {"interface": "an interface", "redis": "Redis", "master": "the master"}
LACKS = {
    "application": "has no process that runs the application",
    "connections": "has no process that holds connections",
    "master": "has no master among its servers",
    "redis": "has no Redis",
}


class Happenings:
    """Does one thing after the other to a server, in a thread beside the sampling. done: what has been, and when."""

    def __init__(self, server: Server, scenario: Scenario, usage: Usage) -> None:
        self._server, self._scenario, self._usage = server, scenario, usage
        self._left = list(scenario.happenings)
        self._thread = threading.Thread()
        self._ended = 0.0
        self.done: list[Happening] = []

    def poll(self, passed: float) -> None:
        """Begin what is due, `passed` seconds into the run."""
        due = FIRST_SECONDS + APART_SECONDS * len(self.done)
        if self._left and passed >= due and not self._thread.is_alive():
            self._thread = threading.Thread(target=self._do, args=(self._left.pop(0), passed))
            self._thread.start()

    def join(self, end: float) -> list[Happening]:
        """Wait, and return what was done. What had not ended at `end` says nothing: it was not seen to its end."""
        if self._thread.ident:
            self._thread.join()
        if self.done and self._ended > end:
            last = self.done[-1]
            note = f"was not measured to the end: its {last.kind} by {last.way} took longer than the run"
            self.done[-1] = Happening(last.kind, None, last.way, note=note)
        return self.done

    def _do(self, kind: str, passed: float) -> None:
        at: float | None = passed
        way = note = ""
        try:
            way = self._way(kind)
        except NotPossible as error:
            at, note = None, str(error)
        except (SideError, OSError, subprocess.SubprocessError) as error:
            note = f"the {kind} failed: {error}"
        self._ended = time.time()
        self.done.append(Happening(kind, at, way, note=note))

    def _way(self, kind: str) -> str:
        """Do it; returns how it was done."""
        if kind == "deploy":
            return deploy(self._server)
        if kind == "upgrade":
            return upgrade(self._server)
        if kind == "noisy":
            return hold(self._server, self._scenario.slow_path)
        return kill(self._server, self._usage, kind)


class NotPossible(SideError):
    """The side has no such process, or no such way."""


def deploy(server: Server) -> str:
    """Deploy the application again as a server's operators do; returns how. Raises SideError."""
    if server.leader is None:
        server.run("asgictl", "reload")
        return "asgictl reload"
    if server.reload:
        command = server.reload.replace("{pid}", str(server.leader)).replace("{port}", str(server.port))
        subprocess.run(shlex.split(command), env=server.environment, check=True, timeout=60, capture_output=True)
        return server.reload
    leader = psutil.Process(server.leader)
    # What runs the old code, which may hold sockets open; multiprocessing's tracker and a Redis live on.
    before = [each for each in leader.children(recursive=True) if connected(each.pid, server.port, psutil.CONN_LISTEN)]
    os.kill(server.leader, signal.SIGHUP)  # as gunicorn, granian and uvicorn --workers understand it
    began = time.monotonic()
    while (passed := time.monotonic() - began) < DIES_SECONDS or (before and passed < HOLD_SECONDS):
        if asked(leader.status, psutil.STATUS_ZOMBIE) == psutil.STATUS_ZOMBIE:
            raise NotPossible("is ended by SIGHUP: not supported without --also-reload")
        before = [process for process in before if process.is_running()]
        time.sleep(0.1)
    return "SIGHUP"


def upgrade(server: Server) -> str:
    """Replace what holds connections: alone where that is a process of its own. Returns how; raises SideError."""
    if server.leader is None and server.status()["mode"] == "split":
        server.run("asgictl", "reload", "--interfaces")
        return "asgictl reload --interfaces"
    return deploy(server)


def hold(server: Server, path: str) -> str:
    """Ask for what holds an interpreter. Returns how; raises OSError."""
    urllib.request.urlopen(server.url + path, timeout=HOLD_SECONDS).close()  # noqa: S310 (our own)
    return f"GET {path}"


def kill(server: Server, usage: Usage, kind: str) -> str:
    """Kill a process of a side; returns which. Of several, the one that holds most connections, else the youngest."""
    if kind == "master":
        pids = usage.pids.get("server", [])
        role, victims = "master", [server.leader] if server.leader else sorted(pids)[:1]
    else:
        role = next((role for role in ROLES[kind] if usage.pids.get(role)), "")
        victims = usage.pids.get(role, [])
    if not (victims := [pid for pid in victims if pid]):
        raise NotPossible(LACKS[kind])
    held = {pid: connected(pid, server.port) for pid in victims}
    victim = max(held, key=lambda pid: (held[pid], pid))
    os.kill(victim, signal.SIGKILL)
    holding = f", which held {held[victim]} of {sum(held.values())} connections" if held[victim] else ""
    return f"kill -9 of {NAMES.get(role, f'a {role}')}{holding}"
