"""Memory that this process may have: the machine's, or its control group's."""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil

GROUPS = (  # most and used, of version 2 and of version 1, as a container sees its own
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(_process(os.getpid()).memory_info().rss)


_process = lru_cache(maxsize=1)(psutil.Process)  # to make one costs as much as what it is asked


def free_and_total_bytes(groups: tuple[tuple[str, str], ...] = GROUPS) -> tuple[float, float]:
    """Return what is free, and of how much."""
    machine = psutil.virtual_memory()
    found = [(float(machine.available), float(machine.total))]
    for most, used in groups:
        with suppress(OSError, ValueError):  # no such group, or one without a limit ("max")
            limit = int(Path(most).read_text())
            if limit < machine.total:
                found.append((float(limit - int(Path(used).read_text())), float(limit)))
    return min(found)
