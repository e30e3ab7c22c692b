"""What servers under measurement share that needs none to run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asgictl.loadtests.servers import Side, pin, with_threads
from tests.conftest import until

THREADED = "import sys, threading; threading.Thread(target=sys.stdin.read).start()"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's alone")
def test_every_thread_of_a_process_is_pinned() -> None:
    core = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", THREADED], stdin=subprocess.PIPE) as process:
        tasks = Path(f"/proc/{process.pid}/task")
        until(lambda: len(list(tasks.iterdir())) == 2, "it has two threads")
        pin([process.pid, 1 << 30], [core])
        assert [os.sched_getaffinity(int(task.name)) for task in tasks.iterdir()] == [{core}] * 2
        pin([process.pid], [])
        assert os.sched_getaffinity(process.pid) == {core}
        process.communicate()


def test_threads_are_set_where_there_are_some() -> None:
    split = Side("split", "asgictl start a:b --threads 3 -d")
    assert with_threads(split, 16).command == "asgictl start a:b --threads 16 -d"
    assert with_threads(split, None) == split
    third = Side("hypercorn", "hypercorn a:b -b {bind}")
    assert with_threads(third, 16) == third
