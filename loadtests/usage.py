"""What a server's processes use, by role: CPU seconds, memory and connections, sampled while it is measured."""

import time
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import psutil

from asgictl.loadtests.contention import Watched
from asgictl.machine.processes import asked

GENERATOR, DATABASE = "generator", "database"
DATABASES = {"postgres", "mariadbd", "mysqld"}  # whose titles stand where their environment was
SETTLED_SECONDS = 1.0  # a process this young may not have become what it will be
MEMORY_SECONDS = 0.9  # from one look at it to the next: it costs as much as a request


@dataclass(frozen=True, slots=True)
class Sample:
    """At a time (of time.time()): CPU seconds used since the first sample, by role, and by others (see Watched)."""

    time: float
    cpu: dict[str, float]
    cores: dict[str, float] = field(default_factory=dict)


class Usage:
    """Of every process that has XDG_RUNTIME_DIR=`runtime` in its environment, as each of a server's has.

    Roles are supervisord's groups: interface, worker, server, redis, controller; the load's process says GENERATOR.
    Beside them stands the DATABASE of this machine, which works for the side that is measured.
    other: the role of what names none, supervisord itself. watched: cores, of which each sample says what was used.
    What a process uses between its last sample and its death is not seen.
    """

    def __init__(self, runtime: str, other: str, watched: Watched | None = None) -> None:
        self._runtime, self._other, self._watched = runtime, other, watched
        self._others: set[tuple[int, float]] = set()
        self._used: dict[tuple[int, float], tuple[str, float]] = {}
        self.samples: list[Sample] = []
        self.held: list[tuple[float, dict[str, float]]] = []

    def sample(self) -> None:
        """Look at all processes now; at their memory about once a second."""
        cpu, memory, now = defaultdict(float), defaultdict(float), time.time()  # type: ignore[var-annotated]
        weighs = not self.held or now >= self.held[-1][0] + MEMORY_SECONDS
        self.pids: dict[str, list[int]] = {}
        for process in psutil.process_iter(["create_time"]):
            identity = process.pid, process.info["create_time"]
            if identity in self._others:
                continue
            try:
                if (role := self._role(process, identity)) is None:
                    continue
                times = process.cpu_times()
                if weighs and role != GENERATOR:
                    memory[role] += proportional_set(process)
            except psutil.Error:  # it has ended, or is somebody else's
                continue
            self._used[identity] = role, times.user + times.system
            self.pids.setdefault(role, []).append(process.pid)
        for role, seconds in self._used.values():
            cpu[role] += seconds
        if weighs:
            self.held.append((now, dict(memory)))
        cores = self._watched.now(self.pids.get(GENERATOR, ())) if self._watched else {}
        self.samples.append(Sample(now, dict(cpu), cores))

    def _role(self, process: psutil.Process, identity: tuple[int, float]) -> str | None:
        if identity in self._used and time.time() - identity[1] > SETTLED_SECONDS + 1:
            return self._used[identity][0]
        environment: dict[str, str] = asked(process.environ, {})
        if any(self._runtime in word and "redis.sock" in word for word in process.cmdline()):
            return "redis"  # whose title stands where its environment was
        if process.name() in DATABASES:
            return DATABASE
        if environment.get("XDG_RUNTIME_DIR") != self._runtime:
            if time.time() - identity[1] > SETTLED_SECONDS:
                self._others.add(identity)
            return None
        group = environment.get("SUPERVISOR_GROUP_NAME", self._other)
        if process.name() == "sleep":  # it holds a listening socket open
            return "controller"
        return "server" if group == "gunicorn" else group

    def connections(self, port: int) -> dict[str, list[int]]:
        """Return how many connections to `port` each process holds, by role; roles that hold none are left out."""
        held = {role: [connected(pid, port) for pid in pids] for role, pids in self.pids.items() if role != GENERATOR}
        return {role: counts for role, counts in held.items() if any(counts)}

    def cpu(self, begin: float, end: float) -> dict[str, float]:
        """Return the CPU seconds that each role used between two times."""
        first, last = (self._at(moment, "cpu") for moment in (begin, end))
        return {role: used - first.get(role, 0.0) for role, used in last.items()}

    def cores(self, begin: float, end: float) -> dict[str, float]:
        """Return by how much what Watched sees has grown between two times."""
        first, last = (self._at(moment, "cores") for moment in (begin, end))
        return {name: used - first.get(name, 0.0) for name, used in last.items()}

    def memory(self, begin: float, end: float) -> dict[str, float]:
        """Return the most bytes that each role held between two times, of its samples' sums."""
        most: dict[str, float] = {}
        for moment, held in self.held:
            if begin <= moment <= end:
                most |= {role: max(most.get(role, 0.0), size) for role, size in held.items()}
        return most

    def weight(self, moment: float) -> float:
        """Return the bytes that all roles held together when they were last looked at before a time."""
        before = [held for at, held in self.held if at <= moment] or [self.held[0][1]]
        return sum(before[-1].values())

    def _at(self, moment: float, kind: str) -> dict[str, float]:
        """Return what had been used at a time, between two samples in proportion."""
        after = min(max(1, bisect([sample.time for sample in self.samples], moment)), len(self.samples) - 1)
        one, two = self.samples[max(0, after - 1)], self.samples[after]
        share = (moment - one.time) / (two.time - one.time) if two.time > one.time else 0.0
        share = min(1.0, max(0.0, share))
        first, last = (getattr(sample, kind) for sample in (one, two))
        return {name: first.get(name, 0.0) + share * (used - first.get(name, 0.0)) for name, used in last.items()}


def proportional_set(process: psutil.Process) -> float:
    """Return the bytes that a process holds, shared pages in proportion (PSS); what is its own where there is none."""
    held = process.memory_full_info()
    return float(getattr(held, "pss", held.uss))


def connected(pid: int, port: int, status: str = psutil.CONN_ESTABLISHED) -> int:
    """Return how many connections to `port` a process holds, or of its other sockets those with this status."""
    held: list[Any] = asked(lambda: psutil.Process(pid).net_connections("tcp"), [])
    return sum(each.status == status and each.laddr.port == port for each in held)
