"""What a server's processes use, by role: CPU seconds and resident memory, sampled while it is measured."""

import time
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass

import psutil

from asgictl.machine.processes import asked

GENERATOR = "generator"
SETTLED_SECONDS = 1.0  # a process this young may not have become what it will be


@dataclass(frozen=True, slots=True)
class Sample:
    """At a time (of time.time()): CPU seconds used since the first sample, and bytes held, by role."""

    time: float
    cpu: dict[str, float]
    memory: dict[str, float]


class Usage:
    """Of every process that has XDG_RUNTIME_DIR=`runtime` in its environment, as each of a server's has.

    Roles are supervisord's groups: interface, worker, server, redis, controller; the load's process says GENERATOR.
    other: the role of what names none, supervisord itself. What a process uses between its last sample and its death is
    not seen.
    """

    def __init__(self, runtime: str, other: str) -> None:
        self._runtime, self._other = runtime, other
        self._others: set[tuple[int, float]] = set()
        self._used: dict[tuple[int, float], tuple[str, float]] = {}
        self.samples: list[Sample] = []

    def sample(self) -> None:
        """Look at all processes now."""
        cpu, memory, now = defaultdict(float), defaultdict(float), time.time()  # type: ignore[var-annotated]
        self.pids: dict[str, list[int]] = {}
        for process in psutil.process_iter(["create_time"]):
            identity = process.pid, process.info["create_time"]
            if identity in self._others:
                continue
            try:
                if (role := self._role(process, identity)) is None:
                    continue
                with process.oneshot():
                    times = process.cpu_times()
                    memory[role] += process.memory_info().rss
            except psutil.Error:  # it has ended, or is somebody else's
                continue
            self._used[identity] = role, times.user + times.system
            self.pids.setdefault(role, []).append(process.pid)
        for role, seconds in self._used.values():
            cpu[role] += seconds
        self.samples.append(Sample(now, dict(cpu), dict(memory)))

    def _role(self, process: psutil.Process, identity: tuple[int, float]) -> str | None:
        if identity in self._used and time.time() - identity[1] > SETTLED_SECONDS + 1:
            return self._used[identity][0]
        environment: dict[str, str] = asked(process.environ, {})
        if any(self._runtime in word and "redis.sock" in word for word in process.cmdline()):
            return "redis"  # whose title stands where its environment was
        if environment.get("XDG_RUNTIME_DIR") != self._runtime:
            if time.time() - identity[1] > SETTLED_SECONDS:
                self._others.add(identity)
            return None
        group = environment.get("SUPERVISOR_GROUP_NAME", self._other)
        if process.name() == "sleep":  # it holds a listening socket open
            return "controller"
        return "server" if group == "gunicorn" else group

    def cpu(self, begin: float, end: float) -> dict[str, float]:
        """Return the CPU seconds that each role used between two times."""
        first, last = self._at(begin), self._at(end)
        return {role: used - first.get(role, 0.0) for role, used in last.items()}

    def memory(self, begin: float, end: float) -> dict[str, float]:
        """Return the most bytes that each role held between two times, of its samples' sums."""
        held: dict[str, float] = {}
        for sample in self.samples:
            if begin <= sample.time <= end:
                held |= {role: max(held.get(role, 0.0), size) for role, size in sample.memory.items()}
        return held

    def _at(self, moment: float) -> dict[str, float]:
        """Return what had been used at a time, between two samples in proportion."""
        after = min(max(1, bisect([sample.time for sample in self.samples], moment)), len(self.samples) - 1)
        one, two = self.samples[max(0, after - 1)], self.samples[after]
        share = (moment - one.time) / (two.time - one.time) if two.time > one.time else 0.0
        share = min(1.0, max(0.0, share))
        return {
            role: one.cpu.get(role, 0.0) + share * (used - one.cpu.get(role, 0.0)) for role, used in two.cpu.items()
        }
