"""Whose run directory it is, and what becomes of an instance whose run directory is removed, or full."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Machine, small_disk, until
from tests.faults.conftest import both_modes

NOBODY = 12345  # plays another user of this machine
SENDING = ("send", "--group", "g", "--text", "x")
COMMANDS = {
    "start -d": ("start", "-d", "--workers", "1"),
    "start": ("start", "--workers", "1"),
    "stop": ("stop",),
    "status": ("status",),
    "logs": ("logs",),
    "reload": ("reload",),
    "restart": ("restart", "worker"),
    "scale": ("scale", "worker=2"),
    "send": SENDING,
    "dead-letters": ("dead-letters", "list"),
}
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can play another user")


@pytest.fixture
def shared(machine: Machine) -> Iterator[Path]:
    """A temporary directory that is everybody's, as /tmp is; without XDG_RUNTIME_DIR run directories are made there."""
    outer = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))  # short: a socket's path holds 107 bytes
    outer.chmod(0o755)
    shared = outer / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    del machine.environment["XDG_RUNTIME_DIR"]
    machine.environment["TMPDIR"] = str(shared)
    yield shared
    machine.run("stop")
    machine.environment["XDG_RUNTIME_DIR"] = str(machine.runtime)
    shutil.rmtree(outer)


def a_link(ours: Path, precious: Path) -> None:
    """The row: the directory is another's, and NAME in it a link to what is precious to the victim."""
    ours.mkdir()
    (ours / "default").symlink_to(precious)
    ours.chmod(0o777)
    os.lchown(ours / "default", NOBODY, NOBODY)
    os.chown(ours, NOBODY, NOBODY)


def a_link_above(ours: Path, precious: Path) -> None:
    (precious / "default").mkdir()
    ours.symlink_to(precious)


def open_to_all(ours: Path, precious: Path) -> None:
    """Ours by right; others have planted what supervisord would be reached by."""
    (ours / "default").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(ours / "default" / "supervisor.sock"))
    (ours / "default").chmod(0o777)
    ours.chmod(0o700)


def planted(ours: Path, precious: Path) -> None:
    """The same once its mode was mended, but not what is in it."""
    open_to_all(ours, precious)
    (ours / "default").chmod(0o700)
    os.chown(ours / "default" / "supervisor.sock", NOBODY, NOBODY)


def of_another(ours: Path, precious: Path) -> None:
    (ours / "default").mkdir(parents=True, mode=0o700)
    ours.chmod(0o700)
    os.chown(ours / "default", NOBODY, NOBODY)


def below_a_free_for_all(ours: Path, precious: Path) -> None:
    ours.parent.chmod(0o777)


TRAPS = [a_link, a_link_above, open_to_all, planted, of_another, below_a_free_for_all]


def listed(place: Path) -> list[tuple[str, int, int]]:
    found = ((str(path), path.lstat()) for path in sorted(place.rglob("*")))
    return [(path, each.st_uid, each.st_mode) for path, each in found]


@needs_root
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a1_a_run_directory_of_another_is_refused_by_every_command(
    machine: Machine, shared: Path, trap: Callable[[Path, Path], None]
) -> None:
    precious = shared.parent / "precious"
    precious.mkdir(mode=0o700)
    (precious / "letter").write_text("dear")
    trap(shared / f"asgictl-{os.getuid()}", precious)
    before = listed(shared.parent)
    every = COMMANDS if trap is a_link else {key: COMMANDS[key] for key in ("start -d", "stop", "status")}
    for command in every.values():
        bind = ("--bind", f"127.0.0.1:{machine.port}") if command[0] == "start" else ()
        done = machine.run(*command, *bind)
        assert done.returncode == 13, (command, done.stdout, done.stderr)
        assert done.stderr.startswith("Error: the run directory cannot be trusted: /")
        assert "XDG_RUNTIME_DIR" in done.stderr
        assert done.stderr.count("\n") == 1
    assert listed(shared.parent) == before
    assert (precious / "letter").read_text() == "dear"


@pytest.mark.parametrize("role", ["controller", "worker"])
def test_a1_roles_prove_what_they_are_told(machine: Machine, tmp_path: Path, role: str) -> None:
    run_dir = tmp_path / "asgictl" / "default"
    run_dir.mkdir(parents=True, mode=0o700)
    run_dir.parent.chmod(0o770)
    machine.environment |= {"ASGICTL_RUN_DIR": str(run_dir), "ASGICTL_NAME": "default"}
    arguments = ("--redis", "redis://127.0.0.1:1") if role == "worker" else ()
    done = machine.run(role, *arguments)
    assert done.returncode == 13, done.stderr
    assert list(run_dir.iterdir()) == []


def test_a1_in_a_directory_that_is_everybodys_it_runs_and_leaves_nothing(machine: Machine, shared: Path) -> None:
    machine.start("--workers", "1")
    assert hello(machine) == b"Hello, world!"
    assert machine.run("status").returncode == 0
    assert machine.run(*SENDING).returncode == 0
    if os.getuid() == 0:
        ours = shared / f"asgictl-{os.getuid()}"
        ours.rename(shared / "moved")
        shutil.copytree(shared / "moved", ours, ignore=shutil.ignore_patterns("*.sock", "redis"))
        os.chown(ours, NOBODY, NOBODY)
        for command in ("status", "stop", "start", "send"):
            assert machine.run(*COMMANDS[command]).returncode == 13, command
        shutil.rmtree(ours)
        (shared / "moved").rename(ours)
        assert hello(machine) == b"Hello, world!"
    machine.stop()
    assert [path for path in shared.rglob("*") if path.name != f"asgictl-{os.getuid()}"] == []


@contextmanager
def removed(machine: Machine, what: str) -> Iterator[Path]:
    run_dir = machine.runtime / "asgictl" / "default"
    if what == "all":
        shutil.rmtree(run_dir.parent)
    elif what == "files":
        for path in [path for path in run_dir.rglob("*") if path.is_file()]:
            path.unlink()
    else:
        for path in [path for path in run_dir.iterdir() if path.is_socket()]:
            path.unlink()
    yield run_dir


@pytest.mark.parametrize(
    ("mode", "what"), [("split", "all"), ("inprocess", "all"), ("split", "sockets"), ("inprocess", "files")]
)
def test_a22_an_instance_whose_run_directory_was_removed_is_found_by_its_processes(
    machine: Machine, mode: str, what: str
) -> None:
    address = machine.runtime / "site.sock"
    started = machine.run("start", "--mode", mode, "--workers", "1", "--bind", f"unix:{address}", "-d")
    assert started.returncode == 0, started.stderr
    before = set(machine.pids())
    with removed(machine, what) as run_dir:
        status = machine.run("status")
        assert status.returncode == 7
        assert "asgictl stop ends it" in status.stderr
        assert "supervisord (" in status.stderr
        again = machine.run("start", "--bind", f"127.0.0.1:{machine.port}", "-d")
        assert again.returncode == 6
        assert "asgictl stop" in again.stderr
        assert set(machine.pids()) == before  # it serves on
        stopped = machine.run("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert machine.pids() == []
        assert not run_dir.exists()
        assert not address.exists()
        assert machine.run("stop").returncode == 7


@both_modes
def test_a22_without_directory_and_supervisord_the_next_start_takes_its_place(machine: Machine, mode: str) -> None:
    machine.start("--mode", mode, "--workers", "1")
    supervisord = int((machine.runtime / "asgictl" / "default" / "supervisord.pid").read_text())
    with removed(machine, "all") as run_dir:
        os.kill(supervisord, signal.SIGKILL)
        until(lambda: "its supervisord has died" in machine.run("status").stderr, "it is seen to be dead")
        assert not run_dir.exists()
        before = set(machine.pids())
        assert hello(machine) == b"Hello, world!"
        assert "ended" in machine.run("start", "--mode", mode, "--bind", f"127.0.0.1:{machine.port}", "-d").stderr
        assert hello(machine) == b"Hello, world!"
        assert not before & set(machine.pids())


def test_a22_a_foreground_start_whose_run_directory_was_removed_ends_in_order(machine: Machine) -> None:
    process = foreground(machine)
    with removed(machine, "all"):
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert machine.pids() == []


def foreground(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    """Start in the foreground, and return once it is ready."""
    process = machine.popen("start", "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", *arguments)
    assert process.stdout
    until(lambda: "Ctrl-C drains" in process.stdout.readline(), "ready")  # type: ignore[union-attr]
    return process


def hello(machine: Machine) -> bytes:
    with urllib.request.urlopen(machine.url + "/hello", timeout=60) as answer:
        content: bytes = answer.read()
        return content


@pytest.fixture
def disk(machine: Machine) -> Iterator[Path]:
    """The runtime directory on a small file system of its own."""
    with small_disk(machine.runtime, "size=2m"):
        yield machine.runtime
        machine.stop()


def fill(disk: Path, spare: int = 0) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(file.tell() - spare, 0))


@both_modes
@pytest.mark.parametrize("detach", [True, False])
def test_a23_without_room_a_start_is_one_clear_line_and_leaves_nothing(
    machine: Machine, disk: Path, mode: str, detach: bool
) -> None:
    fill(disk)
    arguments = ("-d",) if detach else ()
    done = machine.run("start", "--mode", mode, "--workers", "2", "--bind", f"127.0.0.1:{machine.port}", *arguments)
    assert done.returncode == 13
    assert "No space left on device; free some space, or set XDG_RUNTIME_DIR" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert not (disk / "asgictl" / "default").exists()
    assert machine.pids() == []


@both_modes
def test_a23_a_disk_that_fills_while_it_starts_is_the_same(
    machine: Machine, disk: Path, mode: str, tmp_path: Path
) -> None:
    """The application fills it when it is imported, then fails as whatever cannot write does; no import makes room."""
    (tmp_path / "greedy.py").write_text(
        f"file = open({str(disk / 'filler')!r}, 'ab', buffering=0)\nwhile True:\n    file.write(bytes(4096))\n"
    )
    machine.directory = tmp_path
    arguments = ("--mode", mode, "--workers", "2", "--bind", f"127.0.0.1:{machine.port}")
    done = machine.run("start", "greedy:app", *arguments, "-d")
    assert done.returncode == 13, done.stderr
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (disk / "asgictl" / "default").exists()
    assert machine.pids() == []


def test_a23_a_full_disk_refuses_a_change_and_keeps_what_is_described(machine: Machine, disk: Path) -> None:
    machine.start("--workers", "1")
    described = (disk / "asgictl" / "default" / "instance.json").read_text()
    fill(disk, spare=64 << 10)  # what runs can log that it does
    for change in (("scale", "worker=2"), ("reload", "--release", "v2")):
        done = machine.run(*change)
        assert done.returncode == 13, done.stderr
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
    (disk / "filler").unlink()
    assert (disk / "asgictl" / "default" / "instance.json").read_text() == described
    assert machine.status()["workers"] == 1
    assert len([each for each in machine.status()["ready"] if each["role"] == "worker"]) == 1
    assert hello(machine) == b"Hello, world!"


def test_a23_a_file_system_that_cannot_be_written_is_one_line(machine: Machine, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = machine.run("start", "--bind", f"127.0.0.1:{machine.port}", "-d")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert done.returncode == 13
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("detach", [True, False])
@both_modes
def test_c15_a_start_that_a_signal_ends_says_so_in_its_status(
    machine: Machine, tmp_path: Path, mode: str, detach: bool, number: signal.Signals, status: int
) -> None:
    (tmp_path / "slow.py").write_text("import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    machine.directory = tmp_path
    arguments = ("--mode", mode, "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", *(["-d"] if detach else []))
    process = machine.popen("start", "slow:app", *arguments)
    until((tmp_path / "importing").exists, "it is being imported")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert machine.pids() == []
    assert not (machine.runtime / "asgictl" / "default").exists()
