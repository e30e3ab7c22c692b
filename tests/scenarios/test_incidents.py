"""Twelve incidents, set up as they happen: `status`, `logs` and `stacks` alone must name cause and target."""

import os
import re
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.conftest import Machine, new_machine, small_disk, until

SECONDS = 60.0  # in which an incident shows, on a busy machine
MIB = 1 << 20
APPLICATION = """
import ctypes, os, re, threading, time
from asgictl import Application

one, other, kept = threading.Lock(), threading.Lock(), []

def deadlock():
    other.acquire()
    def take_both():
        with one:
            other.acquire()
    threading.Thread(target=take_both, daemon=True).start()
    time.sleep(0.1)
    one.acquire()

def hoard(mib):
    kept.append(bytearray(os.urandom(1 << 20) * mib))

INCIDENTS = {
    "/memory": lambda: hoard(600),
    "/segfault": lambda: ctypes.string_at(0),
    "/exit": lambda: os._exit(7),
    "/hang": lambda: time.sleep(100),
    "/deadlock": deadlock,
    "/gil": lambda: re.match(r"(a+)+$", "a" * 40 + "b"),
    "/leak": lambda: hoard(20),
    "/slow": lambda: time.sleep(1),
}

def site(environ, start_response):
    INCIDENTS.get(environ["PATH_INFO"], lambda: None)()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = Application(http=site, pools={"/reports": "slow"})
"""
OPTIONS = ["--workers", "2", "--slow-seconds", "0.5", "--max-memory-mib", "300"]
found: dict[str, str] = {}  # by incident, the line that named it


@contextmanager
def instance(directory: Path, *options: str) -> Iterator[Machine]:
    (directory / "app.py").write_text(textwrap.dedent(APPLICATION))
    with new_machine() as machine:
        machine.directory, machine.mode = directory, "split"
        machine.start("app:app", *options)
        yield machine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with instance(tmp_path_factory.mktemp("app"), *OPTIONS) as machine:
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """The instance, with both of its workers ready."""
    until(lambda: "worker 2 ready" in shared.run("status").stdout, "its workers are ready")
    return shared


def post(machine: Machine, path: str) -> None:
    """Send a request that does not run twice, and wait for no response."""

    def send() -> None:
        with suppress(OSError):
            urlopen(Request(machine.url + path, method="POST"), timeout=SECONDS).close()

    threading.Thread(target=send, daemon=True).start()


def names(incident: str, pattern: str, *commands: Callable[[], str]) -> None:
    """Wait until a line of what one of the commands prints matches; note it."""

    def is_named() -> bool:
        for command in commands:
            if match := re.search(f"^.*{pattern}.*$", command(), re.M):
                found[incident] = match[0]
                return True
        return False

    until(is_named, f"{incident} is named as {pattern}", SECONDS)


def logs(machine: Machine) -> Callable[[], str]:
    return lambda: machine.run("logs", "-n", "1000").stdout


@contextmanager
def little_memory(machine: Machine) -> Iterator[None]:
    """Have the kernel end a worker that grows by 200 MiB more. As root, with control groups of either version."""
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.exists() else first.parent) / f"asgictl-{os.getpid()}"
    limit = "memory.limit_in_bytes" if first.exists() else "memory.max"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("NOT RUN: this user makes no control group")
    try:
        (group / limit).write_text(str(200 * MIB))
        for pid in pids(machine):
            (group / "cgroup.procs").write_text(str(pid))
        yield
    except OSError:
        pytest.skip("NOT RUN: this control group has no limit of memory")
    finally:
        until(lambda: is_left(group), "nobody is in the control group", SECONDS)


def is_left(group: Path) -> bool:
    """Have a control group's processes go to the one above, and remove it once they have."""
    try:
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)
        group.rmdir()
    except OSError:  # one has ended, or is about to
        return False
    return True


def pids(machine: Machine, role: str = "worker") -> list[int]:
    processes = machine.status()["processes"]
    return [each["pid"] for each in processes if each["role"] == role]


def test_a_worker_that_the_kernel_kills_for_memory(machine: Machine) -> None:
    with little_memory(machine):
        post(machine, "/memory")
        names("memory", r"worker-\d+ .*killed by the kernel: out of memory.*POST /memory", logs(machine))


def test_a_segmentation_fault(machine: Machine) -> None:
    post(machine, "/segfault")
    names("segfault", r"worker-\d+ \(pid \d+\) died: SIGSEGV; it ran POST /segfault", logs(machine))
    assert "string_at" in logs(machine)(), "the log has the stack"


def test_an_exit(machine: Machine) -> None:
    post(machine, "/exit")
    names("exit", r"worker-\d+ \(pid \d+\) died: exit status 7; it ran POST /exit", logs(machine))


def test_a_handler_that_takes_too_long(tmp_path: Path) -> None:
    with instance(tmp_path, "--workers", "1", "--timeout", "2") as machine:
        post(machine, "/hang")
        names("timeout", r"POST /hang .*took longer than 2 s", logs(machine))


def test_a_deadlock(machine: Machine) -> None:
    post(machine, "/deadlock")

    def stuck() -> str:
        """Return who runs the request, if both threads are shown waiting."""
        for text in machine.run("stacks", "worker").stdout.split("\n\n"):
            if "in deadlock" in text and "in take_both" in text:
                return text
        return ""

    names("deadlock", r"worker-\d+ \(pid \d+\) runs POST /deadlock", stuck)
    os.kill(int(found["deadlock"].partition("(pid ")[2].partition(")")[0]), signal.SIGKILL)  # it would not stop


def test_code_that_holds_the_gil(tmp_path: Path) -> None:
    with instance(tmp_path, "--workers", "1", "--silent-seconds", "3") as machine:
        post(machine, "/gil")
        names("gil", r"worker-\d+ .*was silent for .*it ran POST /gil", logs(machine))


def test_a_leak(machine: Machine) -> None:
    for _ in range(40):
        post(machine, "/leak")
    names("leak", r"worker-\d+ .*grew to \d+ MiB \(--max-memory-mib\), last with POST /leak", logs(machine))


def test_one_slow_endpoint(machine: Machine) -> None:
    post(machine, "/slow")
    names("slow", r"slow: POST /slow waited \d+\.\d+ s and ran \d+\.\d+ s", logs(machine))


def test_a_lost_redis(machine: Machine) -> None:
    (redis,) = pids(machine, "redis")
    os.kill(redis, signal.SIGSTOP)
    try:
        names("redis", r"worker-\d+ last heard from Redis \d+ s ago", lambda: machine.run("status").stdout)
    finally:
        os.kill(redis, signal.SIGCONT)


def test_a_broken_deploy(machine: Machine) -> None:
    assert machine.directory
    app = machine.directory / "app.py"
    whole = app.read_text()
    app.write_text("import no_such_shop\n" + whole)
    try:
        assert machine.run("reload").returncode == 3
        names("deploy", r"worker-\d+ \(pid \d+\) could not start: .*no_such_shop", logs(machine))
    finally:
        app.write_text(whole)


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    with new_machine() as machine, small_disk(machine.runtime, "size=60m"):
        machine.directory, machine.mode = tmp_path / "app", "split"
        (machine.directory / "app.py").write_text(textwrap.dedent(APPLICATION))
        machine.start("app:app", "--workers", "1")
        fill = machine.runtime / "fill"
        with fill.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * MIB)
        try:
            names("disk", r"the disk of \S+ is full", lambda: machine.run("status").stdout)
        finally:
            fill.unlink()
        until(lambda: "was full for" in machine.run("logs", "controller").stdout, "the log tells of it later", SECONDS)
        machine.stop()


def test_a_pool_without_workers(tmp_path: Path) -> None:
    with instance(tmp_path, "--workers", "1", "--exclude-channels", "*.slow") as machine:
        post(machine, "/reports")
        names("pool", r"http\.request\.slow: .*no worker serves", logs(machine))
        until(lambda: "http.request.slow: " in machine.run("status").stdout, "status names it too")


def test_the_lines_differ() -> None:
    if len(found) < 12:
        pytest.skip(f"NOT RUN: {len(found)} of 12 incidents were set up")
    assert len(set(found.values())) == 12
