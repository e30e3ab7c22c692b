"""Titles of processes, as ps shows them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from asgictl.machine.processes import is_in_front, is_supervisor, orphans

TITLED = """
import sys
from asgictl.machine.titles import set_title
set_title(sys.argv[1], 'shop')
print(flush=True)
input()
"""


@contextmanager
def titled(process: str, run_dir: Path) -> Iterator[psutil.Process]:
    with subprocess.Popen(
        [sys.executable, "-c", TITLED, process],
        env=os.environ | {"ASGICTL_RUN_DIR": str(run_dir)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield psutil.Process(child.pid)
        child.communicate(b"\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="titles are not set there")
@pytest.mark.parametrize(
    ("process", "front", "supervisor"),
    [
        ("interface-00", True, False),
        ("server-00", True, False),
        ("worker-07", False, False),
        ("supervisord", False, True),
    ],
)
def test_a_process_is_known_by_its_title_and_its_environment_stays(
    process: str, front: bool, supervisor: bool, tmp_path: Path
) -> None:
    with titled(process, tmp_path) as found:
        assert " ".join(found.cmdline()).strip() == f"asgictl: {process} [shop]"
        assert found.environ()["ASGICTL_RUN_DIR"] == str(tmp_path)
        assert (is_in_front(found), is_supervisor(found)) == (front, supervisor)
        assert [each.pid for each in orphans(tmp_path)] == [found.pid]
