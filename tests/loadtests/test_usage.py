"""What processes use, by role."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asgictl.loadtests.usage import Sample, Usage
from tests.conftest import until

BUSY = "import time, sys; until = time.process_time() + 0.2\nwhile time.process_time() < until: pass\nsys.stdin.read()"


def test_processes_are_found_by_their_environment_and_told_apart_by_role(tmp_path: Path) -> None:
    usage = Usage(str(tmp_path), "other")
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    worker = environment | {"SUPERVISOR_GROUP_NAME": "worker"}
    started = [
        subprocess.Popen([sys.executable, "-c", BUSY], env=each, stdin=subprocess.PIPE)
        for each in (environment, worker, os.environ)
    ]

    def used() -> bool:
        usage.sample()
        return all(usage.samples[-1].cpu.get(role, 0) >= 0.2 for role in ("other", "worker"))

    try:
        until(used, "both have computed")
        assert usage.pids == {"other": [started[0].pid], "worker": [started[1].pid]}
        assert usage.samples[-1].memory["worker"] > 1 << 20
        started[1].kill()
        started[1].wait()
        usage.sample()
        assert usage.samples[-1].cpu["worker"] >= 0.2, "what a dead process has used stays used"
        assert "worker" not in usage.samples[-1].memory
    finally:
        for process in started:
            process.communicate()
    assert usage.cpu(0, time.time())["worker"] >= 0


def test_between_two_samples_use_is_in_proportion() -> None:
    usage = Usage("", "")
    usage.samples = [
        Sample(10, {"a": 1.0}, {"a": 5}),
        Sample(20, {"a": 3.0, "b": 1.0}, {"a": 7}),
        Sample(30, {"a": 3.0, "b": 1.0}, {"a": 6}),
    ]
    assert usage.cpu(15, 20) == pytest.approx({"a": 1.0, "b": 0.5})
    assert usage.cpu(0, 99) == pytest.approx({"a": 2.0, "b": 1.0})
    assert usage.memory(10, 20) == {"a": 7}
