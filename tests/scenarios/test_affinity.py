"""What an ASGI application keeps in its process is found again, as `--affinity` says, while its worker lives."""

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import Machine, until
from tests.faults.conftest import handshake
from tests.scenarios.test_demo import SECONDS
from tests.scenarios.test_faults import pids

APPLICATION = """
import os

sessions = {}  # as python-socketio and NiceGUI have them


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(os.getpid())})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    session, status = scope["query_string"].decode(), 200
    if scope["path"] == "/open":
        sessions[session] = 0
    elif scope["path"] == "/poll":
        status = 200 if session in sessions else 400
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
ADDRESSES = [f"127.0.0.{number}" for number in range(10, 26)]
Serve = Callable[[str], Machine]


@pytest.fixture
def serve(machine: Machine, tmp_path: Path) -> Serve:
    def start(affinity: str) -> Machine:
        (tmp_path / "app.py").write_text(APPLICATION)
        machine.directory = tmp_path
        machine.start("app:app", "--workers", "2", "--affinity", affinity, "--drain-seconds", "30")
        return machine

    return start


def connection_of(machine: Machine, address: str = "127.0.0.1") -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", machine.port, timeout=SECONDS, source_address=(address, 0))


def ask(connection: http.client.HTTPConnection, path: str = "/", method: str = "GET") -> tuple[int, int]:
    """Return the status, and the worker's process id."""
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, int(answer.read() or 0)


def once(machine: Machine, address: str, path: str = "/", method: str = "GET") -> tuple[int, int]:
    """The same on a connection of its own."""
    with closing(connection_of(machine, address)) as connection:
        return ask(connection, path, method)


def upgraded(client: socket.socket) -> int:
    """Open a WebSocket on a connection; return the process id that its first frame says."""
    client.sendall(handshake(b"/ws"))
    heard = b""
    while b"\r\n\r\n" not in heard or not heard.partition(b"\r\n\r\n")[2][2:]:
        heard += client.recv(1 << 16)
    return int(heard.partition(b"\r\n\r\n")[2][2:])


def test_a_client_finds_its_session_on_fresh_connections_and_its_socket_too(serve: Serve) -> None:
    """As python-socketio polls, and upgrades."""
    machine, homes = serve("client"), set()
    for address in ADDRESSES:
        status, home = once(machine, address, f"/open?{address}")
        assert status == 200
        for method in ("GET", "POST", "GET"):
            assert once(machine, address, f"/poll?{address}", method) == (200, home)
        with socket.create_connection(("127.0.0.1", machine.port), SECONDS, (address, 0)) as client:
            assert upgraded(client) == home
        homes.add(home)
    assert homes == pids(machine, "worker")
    channels = machine.status()["channels"]
    assert set(channels) == {"http.request", "websocket.connect"}


def test_a_connection_stays_with_its_worker_and_so_does_its_upgrade(serve: Serve) -> None:
    machine = serve("connection")
    with ExitStack() as connections:
        opened = [connections.enter_context(closing(connection_of(machine))) for _ in range(8)]
        homes = [ask(each)[1] for each in opened]
        assert [{ask(each)[1] for _ in range(8)} for each in opened] == [{home} for home in homes]
        for each, home in zip(opened, homes, strict=True):
            assert each.sock
            assert upgraded(each.sock) == home


@pytest.mark.parametrize("affinity", ["connection", "client"])
def test_a_killed_worker_moves_those_that_it_served_and_no_others(serve: Serve, affinity: str) -> None:
    """The first request may reach a process that dies: only a safe one runs again then, as everywhere."""
    machine = serve(affinity)
    with ExitStack() as connections:
        opened = [connections.enter_context(closing(connection_of(machine, address))) for address in ADDRESSES]
        homes = [ask(each)[1] for each in opened]
        dead, *_ = homes
        os.kill(dead, signal.SIGKILL)
        for each, home in zip(opened, homes, strict=True):
            for method in ("GET", "POST"):
                status, now = ask(each, method=method)
                assert status == 200
                assert now == home if home != dead else now != dead


@pytest.fixture
def loaded(serve: Serve, request: pytest.FixtureRequest) -> Iterator[tuple[Machine, list[int], list[object]]]:
    """An instance under load on keep-alive connections: how many requests it has served, and what failed."""
    machine, stopping = serve(request.param), threading.Event()
    served: list[int] = []
    failed: list[object] = []

    def load(address: str) -> None:
        with closing(connection_of(machine, address)) as connection:
            while not stopping.is_set():
                try:
                    for method in ("GET", "POST"):
                        status, pid = ask(connection, method=method)
                        (served if status == 200 else failed).append(pid)
                except (OSError, http.client.HTTPException) as error:
                    failed.append(error)
                    connection.close()

    clients = [threading.Thread(target=load, args=(address,)) for address in ADDRESSES]
    for each in clients:
        each.start()
    try:
        yield machine, served, failed
    finally:
        stopping.set()
        for each in clients:
            each.join()


@pytest.mark.parametrize("loaded", ["connection", "client"], indirect=True)
def test_a_reload_of_workers_under_sticky_connections_fails_nothing(
    loaded: tuple[Machine, list[int], list[object]],
) -> None:
    machine, served, failed = loaded
    for _ in range(3):
        before = pids(machine, "worker")
        done = machine.run("reload")
        assert done.returncode == 0, done.stderr
        seen = len(served)
        until(lambda: len(served) > seen + 50, "it serves on", SECONDS)  # noqa: B023 - not kept
        until(lambda: before.isdisjoint(served[-16:]), "what the old ones still had is answered")  # noqa: B023
    assert failed == []
