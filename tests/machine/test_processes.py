"""Processes that nobody supervises any more, as real ones."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from asgictl.machine.processes import end, is_alive, kill, note_exit, orphans, take_exit
from tests.conftest import until

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
        assert ours.wait(60) == -9


@pytest.mark.slow
def test_servers_end_before_what_serves_them(tmp_path: Path) -> None:
    """The obstinate server keeps the other from being told for as long as it may take."""
    with (
        start(tmp_path, sys.executable, "-c", OBSTINATE, "interface") as server,
        start(tmp_path, "sleep", "60") as other,
    ):
        assert server.stdout
        server.stdout.readline()
        end(orphans(tmp_path), front_seconds=0.1, seconds=5)
        assert server.wait(60) == -9
        assert not Path(f"/proc/{other.pid}").exists()


def test_nothing_is_left_to_end_nothing(tmp_path: Path) -> None:
    assert orphans(tmp_path) == []
    end([])


def test_what_is_killed_takes_its_group_along(tmp_path: Path) -> None:
    """The other has another environment, so only its group tells whose it is."""
    code = f"import os, subprocess; subprocess.Popen(['sleep', '60'], env={{}}); {OBSTINATE}"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"ASGICTL_RUN_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, process_group=0) as ours:
        assert ours.stdout
        ours.stdout.readline()
        (child,) = psutil.Process(ours.pid).children()
        assert end(orphans(tmp_path), seconds=0.1) == 2
        assert not is_alive(child)


def test_our_own_group_is_not_killed(tmp_path: Path) -> None:
    with start(tmp_path, sys.executable, "-c", OBSTINATE) as ours:
        assert ours.stdout
        ours.stdout.readline()
        assert kill(orphans(tmp_path)) == 1
        assert ours.wait(60) == -9


def test_a_supervisord_that_stands_still_is_killed_first(tmp_path: Path) -> None:
    with (
        start(tmp_path, "sleep", "60") as other,
        start(tmp_path, sys.executable, "-c", OBSTINATE, "asgictl.control.supervisord_main") as one,
    ):
        assert one.stdout
        one.stdout.readline()
        one.send_signal(signal.SIGSTOP)
        assert end(orphans(tmp_path)) == 1
        assert not Path(f"/proc/{one.pid}").exists()
        assert not Path(f"/proc/{other.pid}").exists()


def test_children_end_with_their_process() -> None:
    """One that ignores SIGTERM too; a zombie has ended."""
    code = f"""
import os, signal, subprocess, sys, time
from asgictl.machine.processes import end_children
children = [subprocess.Popen(["sleep", "60"]), subprocess.Popen([sys.executable, "-c", {OBSTINATE!r}], stdout=-1)]
children[1].stdout.readline()
end_children(0.2)
for child in children:
    child.wait(60)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("title", "is_ours"),
    [
        ("valkey-server unixsocket:{}/redis.sock", True),
        ("valkey-server unixsocket:/var{}/redis.sock", False),
        ("redis-cli -s {}/redis.sock", False),
    ],
)
def test_a_redis_is_known_by_its_own_socket_alone(title: str, is_ours: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OBSTINATE, *title.format(tmp_path).split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as one:
        assert one.stdout
        one.stdout.readline()
        assert (one.pid in [each.pid for each in orphans(tmp_path)]) is is_ours
        one.kill()


@pytest.mark.parametrize(("end", "status"), [("exit 3", 3 << 8), ("kill -9 $$", signal.SIGKILL), ("exit 0", 0)])
def test_how_a_child_ended_is_noted_for_one_who_takes_it(end: str, status: int, tmp_path: Path) -> None:
    with subprocess.Popen(["sh", "-c", f"read x; {end}"], stdin=subprocess.PIPE) as child:
        note_exit(tmp_path, child.pid)
        assert take_exit(tmp_path, child.pid) is None
        old = tmp_path / "exit-1"
        old.write_text("0\n")
        os.utime(old, (1, 1))
        assert child.stdin
        child.stdin.close()

        def is_noted() -> bool:
            note_exit(tmp_path, child.pid)
            return (tmp_path / f"exit-{child.pid}").exists()

        until(is_noted, "it is noted")
        assert take_exit(tmp_path, child.pid) == status
        assert list(tmp_path.iterdir()) == []
        assert child.wait() == os.waitstatus_to_exitcode(status)
