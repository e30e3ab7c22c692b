"""The resident memory of processes, while something happens to them."""

import math
import threading

import psutil

from asgictl.machine.processes import asked

SAMPLE_SECONDS = 0.05


def resident_bytes(pid: int) -> float:
    """Return what a process holds; infinity once it has ended, since nobody knows what it would have grown to."""
    return asked(lambda: float(psutil.Process(pid).memory_info().rss), math.inf)


class Memory:
    """Samples in a thread of its own, from `with` to its end. before and peak: bytes, by the process's name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before = {name: resident_bytes(pid) for name, pid in pids.items()}
        self.peak = dict(self.before)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ending.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            for name, pid in self._pids.items():
                self.peak[name] = max(self.peak[name], resident_bytes(pid))
