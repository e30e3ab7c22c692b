"""A16, A20: what handlers fork or start holds nothing of the instance, and ends with it."""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, is_listening, new_machine, until
from tests.faults.conftest import is_closed

SOURCE = """
import asyncio, multiprocessing, os, signal, socket, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from asgictl import Application, path

OWN = socket.socketpair()
KEPT = []


def wait(name):
    while not os.path.exists(f"go-{name}"):
        time.sleep(0.01)


def fork(name):
    pid = os.fork()
    if not pid:
        wait(name)
    return pid


def forkpty(name):
    pid, terminal = os.forkpty()
    if not pid:
        wait(name)
    KEPT.append(terminal)  # its end would be the child's
    return pid


def exiting(name):
    pid = fork(name)
    if not pid:
        sys.exit(1)
    return pid


def process(name):
    child = multiprocessing.get_context("fork").Process(target=wait, args=(name,))
    child.start()
    return child.pid


def pool(name):
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    pid = executor.submit(os.getpid).result()
    executor.submit(wait, name)
    executor.shutdown(wait=False)
    return pid


def program(name):
    code = "import os, sys, time\\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    return subprocess.Popen([sys.executable, "-c", code, f"go-{name}"]).pid


def obstinate():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def sleep():
    time.sleep(1000)


def lasting(how):
    if how == "fork":
        pid = os.fork()
        return pid or time.sleep(1000)
    if how in ("double", "daemon"):
        read, write = os.pipe()
        if not (pid := os.fork()):
            if how == "daemon":
                os.setsid()
            if not (pid := os.fork()):
                time.sleep(1000)
            os.write(write, str(pid).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return int(os.read(read, 99))
    if how in ("sleeping", "obstinate"):
        child = multiprocessing.Process(target=obstinate if how == "obstinate" else sleep)
        child.start()
        KEPT.append(child)
        return child.pid
    if how == "pool":
        executor = multiprocessing.Pool(1)
        KEPT.append(executor)
        executor.apply_async(time.sleep, (1000,))
        return executor.apply_async(os.getpid) and executor._pool[0].pid
    options = {"program": {}, "bare": {"env": {}}, "session": {"start_new_session": True}}[how]
    return subprocess.Popen(["/bin/sleep", "1000"], **options).pid


def run(text):
    how, _, name = text.strip("/").partition("-")
    made = lasting(name) if how == "lasting" else globals()[how](name) if how else os.getpid()
    return str(made)


def wsgi(environ, start_response):
    body = run(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    body = run(environ["PATH_INFO"].removeprefix("/generator"))
    yield b" "
    if body == "0":
        os.rename("app.py", "the child was let go on")
    yield body.encode()


async def asgi(scope, receive, send):
    kind, _, text = scope["path"].strip("/").partition("/")
    body = run(text) if kind == "asgi" else await asyncio.to_thread(run, text)
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


async def socket_of_asgi(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": run(message["text"])})


def accept(message):
    message.accept()


def sync_consumer(message):
    if str(message.text) == "count":
        message.state["count"] = message.state.get("count", 0) + 1
        message.reply(text=str(message.state["count"]))
    else:
        message.reply(text=run(message.text))


async def async_consumer(message):
    made = run(message.text)
    await asyncio.sleep(0)
    message.reply(text=made)


def job(message):
    made = run(message.content["text"])
    open(message.content["to"] + ".new", "w").write(made)
    os.rename(message.content["to"] + ".new", message.content["to"])


async def async_job(message):
    job(message)
    await asyncio.sleep(0)


mounted = {"/": wsgi, "/asgi": asgi, "/thread": asgi, "/generator": generator}
app = Application(
    http=mounted,
    websocket=[
        path("/sync", connect=accept, receive=sync_consumer),
        path("/async", connect=accept, receive=async_consumer),
    ],
    background={"job": job, "async_job": async_job},
)
sockets = Application(http=mounted, websocket=socket_of_asgi)
"""
names = count(1)
ON_A_SOCKET = ("sync", "async", "socket")


class Place:
    """An instance in whose handlers the test forks."""

    def __init__(self, machine: Machine, directory: Path, redis: tuple[str, ...] = ()) -> None:
        self.machine = machine
        self.directory = directory
        self.redis = redis  # the option that names it

    def fork(self, where: str, how: str) -> tuple[int, Path]:
        """Fork in a handler; returns the child, and what is to be made for it to go on."""
        name = str(next(names))
        return self.run(where, f"{how}-{name}"), self.directory / f"go-{name}"

    def run(self, where: str, text: str) -> int:
        if where in ON_A_SOCKET:
            with connect(f"{self.machine.ws}/{where}") as client:
                client.send(text)
                return int(client.recv(60))
        if "job" in where:
            told = self.directory / f"told-{next(names)}"
            content = json.dumps({"text": text, "to": str(told)})
            sent = self.machine.run("send", "--channel", where, "--json", content, *self.redis)
            assert sent.returncode == 0, sent.stderr
            until(told.exists, "the job has run")
            return int(told.read_text())
        prefix = "" if where == "wsgi" else f"/{where}"
        with urllib.request.urlopen(f"{self.machine.url}{prefix}/{text}", timeout=60) as answer:
            return int(answer.read())


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def sockets_of(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if (target := os.readlink(entry)).startswith("socket:"):
                found.add(target.removeprefix("socket:[").removesuffix("]"))
    return found


def sockets_beyond(pid: int) -> set[str]:
    """Return the sockets of a process that listen or lead out of it: to clients, Redis or the controller."""
    own = sockets_of(pid)
    shown = subprocess.run(["ss", "-xtanpe"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = set()
    for line in shown:
        words = line.split()
        inode = next((w.removeprefix("ino:") for w in words if w.startswith("ino:")), words[5])
        if inode in own and (words[0] == "tcp" or words[7] not in own):
            found.add(line)
    return found


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Place]:
    (directory / "app.py").write_text(SOURCE)
    with new_machine() as machine:
        machine.directory = directory
        machine.start(*arguments)
        yield Place(machine, directory, arguments[-2:] if "--redis" in arguments else ())


@pytest.fixture(scope="module", params=MODES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, url_of_valkey: str
) -> Iterator[Place]:
    """An instance in each mode, with consumers and jobs."""
    directory, redis = tmp_path_factory.mktemp("app"), ("--redis", url_of_valkey)
    with running(directory, "app:app", "--workers", "2", "--mode", request.param, *redis) as made:
        yield made


def holds_nothing_and_ends(place: Place, where: str, how: str) -> None:
    pid, go = place.fork(where, how)
    try:
        until(lambda: not sockets_beyond(pid), "the child has let go")
    finally:
        go.touch()
    until(lambda: not is_alive(pid), "the child has ended")


@pytest.mark.parametrize("how", ["fork", "forkpty", "process", "pool", "program"])
@pytest.mark.parametrize("where", ["wsgi", "generator", "asgi", "thread", "sync", "async", "job", "async_job"])
def test_a_child_holds_nothing_and_ends_with_its_handler(place: Place, where: str, how: str) -> None:
    """A20."""
    holds_nothing_and_ends(place, where, how)


@pytest.mark.parametrize("where", ["wsgi", "sync", "async", "job"])
def test_a_child_that_exits_takes_nobody_along(place: Place, where: str) -> None:
    """A20."""
    holds_nothing_and_ends(place, where, "exiting")
    assert place.run("wsgi", "")


@pytest.mark.parametrize("mode", MODES)
def test_a_child_of_an_asgi_socket_holds_nothing_and_ends(mode: str, tmp_path: Path) -> None:
    """A20."""
    with running(tmp_path, "app:sockets", "--mode", mode) as place:
        for how in ("fork", "process"):
            holds_nothing_and_ends(place, "socket", how)


@pytest.mark.parametrize("server", ["daphne", "hypercorn"])
def test_a_child_holds_nothing_on_other_servers(server: str, tmp_path: Path) -> None:
    """A20."""
    with running(tmp_path, "app:app", "--mode", "inprocess", "--server", server) as place:
        for where, how in itertools.product(("wsgi", "asgi", "sync", "async"), ("fork", "process", "program")):
            holds_nothing_and_ends(place, where, how)


def test_a_connection_closes_while_a_child_lives(place: Place) -> None:
    """A20: the server closes what was open before the fork, and what the fork was asked for on."""
    address = ("127.0.0.1", place.machine.port)
    request = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    name = str(next(names))
    with socket.create_connection(address) as before, socket.create_connection(address) as asking:
        asking.sendall(request % f"fork-{name}".encode())
        try:
            assert is_closed(asking)
            before.sendall(request % b"")
            assert is_closed(before)
        finally:
            (place.directory / f"go-{name}").touch()


def count_beside(place: Place, clients: int, messages: int, where: list[str]) -> None:
    """Have sockets count while handlers fork: nothing may be lost, repeated or reordered."""

    async def one() -> None:
        async with connect_async(f"{place.machine.ws}/sync") as client:
            for expected in itertools.count(1):
                if expected > messages and len(children) > 3:
                    return
                await client.send("count")
                assert int(await asyncio.wait_for(client.recv(), 60)) == expected

    async def fork() -> None:
        for each in itertools.cycle(where):
            pid, go = await asyncio.to_thread(place.fork, each, "fork")
            go.touch()
            children.append(pid)

    async def main() -> None:
        forking = asyncio.create_task(fork())
        await asyncio.gather(*(one() for _ in range(clients)))
        forking.cancel()
        await asyncio.wait([forking])
        assert forking.cancelled()

    children: list[int] = []
    asyncio.run(main())
    until(lambda: not any(map(is_alive, children)), "the children have ended")


def test_neighbours_lose_nothing_to_a_fork(place: Place) -> None:
    """A20."""
    count_beside(place, 10, 60, ["wsgi", "asgi", "sync", "async", "thread"])


@pytest.mark.soak
def test_neighbours_lose_nothing_to_many_forks(place: Place) -> None:
    """A20: 4,000 replies, as where the fault was found."""
    count_beside(place, 20, 200, ["wsgi", "asgi", "sync", "async", "thread"])


LASTING = ["fork", "double", "daemon", "sleeping", "obstinate", "pool", "program", "bare", "session"]


@pytest.mark.parametrize("arguments", [["split"], ["inprocess"], ["inprocess", "--server", "daphne"]], ids=" ".join)
def test_stop_ends_what_handlers_have_started(arguments: list[str], tmp_path: Path) -> None:
    """A16, A20: within its time, and nothing holds the port."""
    with running(tmp_path, "app:app", "--workers", "1", "--mode", *arguments) as place:
        pids = [place.run(where, f"lasting-{how}") for where in ("wsgi", "sync", "async") for how in LASTING]
        assert all(map(is_alive, pids))
        began = time.monotonic()
        stopped = place.machine.run("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert time.monotonic() - began < 50
        assert not [pid for pid in pids if is_alive(pid)]
        assert not is_listening(place.machine.port)


def test_the_foreground_ends_them_too(tmp_path: Path) -> None:
    """A16: by Ctrl-C."""
    (tmp_path / "app.py").write_text(SOURCE)
    with new_machine() as machine:
        machine.directory = tmp_path
        with machine.popen("start", "app:app", "--bind", f"127.0.0.1:{machine.port}") as foreground:
            assert foreground.stdout is not None
            assert any("Ctrl-C drains" in line for line in foreground.stdout), "it has started"
            place = Place(machine, tmp_path)
            pids = [place.run("wsgi", f"lasting-{how}") for how in ("sleeping", "session")]
            foreground.send_signal(signal.SIGINT)
            assert foreground.wait(60) == 0
            foreground.communicate()
        assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize("mode", MODES)
def test_a_deploy_leaves_no_children_of_the_old(mode: str, tmp_path: Path) -> None:
    """A16: only a daemon, with a session of its own and no parent, lives on until `stop`."""
    with running(tmp_path, "app:app", "--workers", "1", "--mode", mode) as place:
        pids = [place.run("wsgi", f"lasting-{how}") for how in ("double", "sleeping", "program", "session")]
        daemon = place.run("wsgi", "lasting-daemon")
        assert place.machine.run("reload").returncode == 0
        until(lambda: not any(map(is_alive, pids)), "the old ones' children have ended")
        assert place.run("wsgi", "")
        assert is_alive(daemon)


def test_scaling_down_leaves_no_children(tmp_path: Path) -> None:
    """A16."""
    with running(tmp_path, "app:app", "--workers", "2") as place:
        by_parent: dict[int, list[int]] = {}
        while len(by_parent) < 2:
            pid = place.run("wsgi", "lasting-program")
            by_parent.setdefault(psutil.Process(pid).ppid(), []).append(pid)
        assert place.machine.run("scale", "worker=1", "--wait").returncode == 0
        (gone,) = [parent for parent in by_parent if not is_alive(parent)]
        until(lambda: not any(map(is_alive, by_parent[gone])), "its children have ended")


def test_the_group_of_a_killed_worker_ends(tmp_path: Path) -> None:
    """A16."""
    with running(tmp_path, "app:app", "--workers", "1") as place:
        worker = place.run("wsgi", "")
        pids = [place.run("wsgi", f"lasting-{how}") for how in ("double", "obstinate", "program")]
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(map(is_alive, pids)), "the killed one's children have ended")
        assert place.run("wsgi", "") != worker


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("mode", MODES)
def test_stop_ends_them_without_supervisord(mode: str, how: signal.Signals, tmp_path: Path) -> None:
    """A16, A6."""
    with running(tmp_path, "app:app", "--workers", "1", "--mode", mode) as place:
        pids = [place.run("wsgi", f"lasting-{each}") for each in ("fork", "double", "program", "session")]
        supervisord = int((place.machine.runtime / "asgictl/default/supervisord.pid").read_text())
        os.kill(supervisord, how)
        assert place.machine.run("stop").returncode == 0
        assert not [pid for pid in [supervisord, *pids] if is_alive(pid)]


@pytest.mark.soak
@pytest.mark.parametrize(("mode", "role"), [("split", "interface"), ("split", "worker"), ("inprocess", "server")])
def test_stop_ends_within_its_time_although_a_process_stands_still(mode: str, role: str, tmp_path: Path) -> None:
    """A16: 40 s and 10 s, and the time of a command."""
    with running(tmp_path, "app:app", "--workers", "1", "--mode", mode) as place:
        processes = place.machine.status()["processes"]
        pid = next(each["pid"] for each in processes if each["role"] == role and each["ready"])
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        stopped = place.machine.run("stop", seconds=90)
        assert (stopped.returncode, time.monotonic() - began < 60) == (0, True), stopped
        assert not is_alive(pid)
