"""Processes that nobody supervises any more, as real ones."""

import os
import subprocess
import sys
from pathlib import Path

from asgictl.orphans import end, orphans

OBSTINATE = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def start(run_dir: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=os.environ | {"ASGICTL_RUN_DIR": str(run_dir)}, stdout=subprocess.PIPE)


def test_they_are_known_by_their_run_directory_and_end(tmp_path: Path) -> None:
    with start(tmp_path / "one", "sleep", "60") as ours, start(tmp_path / "other", "sleep", "60") as other:
        found = orphans(tmp_path / "one")
        assert [process.pid for process in found] == [ours.pid]
        end(found)
        assert not Path(f"/proc/{ours.pid}").exists()
        assert other.poll() is None
        other.kill()


def test_what_does_not_drain_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, sys.executable, "-c", OBSTINATE) as ours:
        assert ours.stdout
        ours.stdout.readline()
        end(orphans(tmp_path), seconds=0.1)
        assert ours.wait(10) == -9


def test_servers_end_before_what_serves_them(tmp_path: Path) -> None:
    """The obstinate server keeps the other from being told for as long as it may take."""
    with (
        start(tmp_path, sys.executable, "-c", OBSTINATE, "interface") as server,
        start(tmp_path, "sleep", "60") as other,
    ):
        assert server.stdout
        server.stdout.readline()
        end(orphans(tmp_path), front_seconds=0.1, seconds=5)
        assert server.wait(10) == -9
        assert not Path(f"/proc/{other.pid}").exists()


def test_nothing_is_left_to_end_nothing(tmp_path: Path) -> None:
    assert orphans(tmp_path) == []
    end([])
