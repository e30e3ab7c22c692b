"""Where a comparison was made, and of what: what somebody needs who makes it again elsewhere."""

import hashlib
import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from asgictl.machine.processes import asked

SECONDS = 10
CPU_INFO = Path("/proc/cpuinfo")


def surroundings() -> dict[str, Any]:
    """Return the machine, the interpreter, the packages, and the revision of the current directory."""
    return {
        "made": time.strftime("%Y-%m-%d %H:%M %Z"),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "revision": _said("git", "describe", "--always", "--dirty", "--abbrev=40", "--match="),
        "versions": {
            name.lower(): each.version for each in distributions() if (name := each.metadata["Name"]) is not None
        },
        "cores_of_machine": os.cpu_count(),
    }


def cpu_model() -> str:
    """Return what the processor calls itself."""
    with suppress(OSError):
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def redis_version(pid: int) -> str:
    """Return the version of a Redis that runs, "" where it does not say."""
    program = asked(lambda: psutil.Process(pid).exe(), "")
    return _said(program, "--version") if program else ""


def hash_of(path: str) -> str:
    """Return the SHA-256 of a file, "" without one."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


def _said(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
        return done.stdout.strip()
    return ""
