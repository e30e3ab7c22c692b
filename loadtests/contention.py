"""What else used the cores of a comparison: neighbours, the hypervisor, a cgroup's quota; and how late the load came.

A round that was disturbed says nothing of the sides: it is named, and run again.
"""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STOLEN = 0.02
DELAYED = 0.1  # of the time that the generator wanted to run
LATE_SECONDS = 0.02  # of one timer in a hundred: a latency would be the generator's
SERVERS, LOAD = "servers", "load"
FOREIGN = {SERVERS: 0.1, LOAD: 0.25}  # of the cores: a generator that is kept waiting says so itself, below
STAT, QUOTAS = Path("/proc/stat"), ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")


@dataclass(frozen=True, slots=True)
class Watched:
    """The cores of the servers and of the load; the same ones where there is only one set."""

    servers: Collection[int]
    load: Collection[int]

    def now(self, generators: Iterable[int]) -> dict[str, float]:
        """Return seconds since boot: busy and stolen of each set, delay of these processes, throttled. {} elsewhere."""
        if not STAT.exists():
            return {}
        ticks = 1 / os.sysconf("SC_CLK_TCK")
        found = {"throttled": throttled(), "delay": sum(map(run_delay, generators))}
        for line in STAT.read_text().splitlines():
            name, *numbers = line.split()
            if name == "cpu" or not name.startswith("cpu"):
                continue
            user, nice, system, _idle, _iowait, _irq, _softirq, stolen = (int(each) * ticks for each in numbers[:8])
            for kind, cores in ((SERVERS, self.servers), (LOAD, self.load)):
                if int(name[3:]) in cores:
                    found[f"{kind} busy"] = found.get(f"{kind} busy", 0.0) + user + nice + system
                    found[f"{kind} stolen"] = found.get(f"{kind} stolen", 0.0) + stolen
        return found


def run_delay(pid: int) -> float:
    """Return the seconds that a process was ready to run, and something else had its core."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def throttled() -> float:
    """Return the seconds that the quota of our cgroup has held its processes up; what has no quota has none."""
    for path in QUOTAS:
        with suppress(OSError, ValueError):
            told = dict(line.split() for line in Path(path).read_text().splitlines())
            return int(told.get("throttled_usec", 0)) / 1e6 + int(told.get("throttled_time", 0)) / 1e9
    return 0.0


def disturbances(
    watched: Watched, cores: dict[str, float], used: dict[str, float], seconds: float, lateness: float | None
) -> list[str]:
    """Return what disturbed a run, in words.

    cores: what Watched saw grow. used: CPU seconds that we used ourselves, on the cores of SERVERS and of LOAD.
    lateness: of the generator's timers, None where no latency is judged.
    """
    found = []
    sets = {SERVERS: watched.servers, LOAD: watched.load}
    if set(watched.servers) == set(watched.load):
        sets, used = {SERVERS: watched.servers}, {SERVERS: sum(used.values())}
    for kind, its in sets.items():
        capacity = seconds * max(1, len(its))
        foreign = (cores.get(f"{kind} busy", 0.0) - used[kind]) / capacity
        stolen = cores.get(f"{kind} stolen", 0.0) / capacity
        if foreign >= FOREIGN[kind]:
            found.append(f"a neighbour used {foreign:.0%} of the cores of the {kind}")
        if stolen >= STOLEN:
            found.append(f"the hypervisor took {stolen:.0%} of the cores of the {kind}")
    if len(sets) > 1 and (delay := cores.get("delay", 0.0)) / seconds >= DELAYED:
        found.append(f"the load generator waited {delay / seconds:.0%} of the time for its core")
    if (held := cores.get("throttled", 0.0)) > 0:
        found.append(f"the cgroup's quota held processes up for {held:.2f} s")
    if lateness is not None and lateness >= LATE_SECONDS:
        found.append(f"the load generator was {lateness * 1e3:.0f} ms late")
    return found
