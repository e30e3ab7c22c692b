"""Deploys beside what is open, and the processes that requests of one connection go to."""

import http.client
import socket
import subprocess
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from tests.conftest import Machine, until
from tests.faults.conftest import SECONDS, Serve, both_modes, exchange, kill, readiness, request

ASGI = """
    import asyncio
    import os

    RELEASE = b"1"


    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                pass
            return
        if scope["path"] == "/pid":
            await asyncio.sleep(0.01)
            body = b"%d" % os.getpid()
        else:
            body = b"release " + RELEASE
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""


def edit(directory: Path, release: int) -> None:
    """Write the next release."""
    path = directory / "app.py"
    path.write_text(path.read_text().replace(f'b"{release - 1}"', f'b"{release}"') + "\n")  # of another size


def is_served(machine: Machine, release: int) -> bool:
    try:
        return f"release {release}".encode() in exchange(machine, request(b"/"))
    except OSError:
        return False


def pids_of_a_connection(port: int) -> set[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = set()
    for _ in range(12):
        connection.request("GET", "/pid")
        found.add(connection.getresponse().read())
    connection.close()
    return found


@both_modes
def test_a_keep_alive_connection_stays_with_a_process(serve: Serve, mode: str) -> None:
    """C11: what polls, as socket.io, finds its session again."""
    machine = serve(ASGI, "--workers", "2", mode=mode)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(pids_of_a_connection, [machine.port] * 6))
    assert [len(each) for each in found] == [1] * 6


@pytest.mark.soak
def test_a_second_edit_is_served_beside_an_open_socket(machine: Machine, tmp_path: Path) -> None:
    """C12: within 2 s; 6 s on a busy machine."""
    (tmp_path / "app.py").write_text(ASGI.replace("\n    ", "\n"))
    machine.directory = tmp_path
    bind = f"127.0.0.1:{machine.port}"
    with machine.popen("start", "app:app", "--workers", "1", "--reload", "--bind", bind) as running:
        lines: list[str] = []

        def collect() -> None:
            for line in running.stdout or ():
                lines.append(line)

        reading = threading.Thread(target=collect)
        reading.start()
        try:
            until(lambda: any("Ctrl-C" in line for line in lines), "it serves")
            time.sleep(1)  # nothing tells that it watches
            with connect(machine.ws + "/ws", close_timeout=0.2):
                edit(tmp_path, 2)
                until(lambda: is_served(machine, 2), "the first edit is served")
                edit(tmp_path, 3)
                deadline = time.monotonic() + 6
                while not (served := is_served(machine, 3)) and time.monotonic() < deadline:
                    time.sleep(0.1)
        finally:
            kill(machine)
            reading.join()
    assert served


@pytest.mark.soak
def test_reload_returns_once_the_new_release_serves(serve: Serve, tmp_path: Path) -> None:
    """C13: the old one drains on, which `status` shows."""
    machine = serve(ASGI, "--workers", "1")
    with socket.create_connection(("127.0.0.1", machine.port), timeout=60) as client:
        client.sendall(request(b"/stream"))
        assert client.recv(1 << 16)
        edit(tmp_path, 2)
        with machine.popen("reload") as reloading:
            try:
                reloading.wait(25)
                returned = True
            except subprocess.TimeoutExpired:
                returned = False
                reloading.kill()
            shown = machine.run("status").stdout
            is_new = is_served(machine, 2)
            if not returned:
                kill(machine)
            reloading.communicate()
    assert is_new
    assert returned
    assert "drain" in shown


class Load:
    """Requests on kept and on fresh connections, and sockets that come back, until it ends; what failed, and how."""

    def __init__(self, machine: Machine, sockets: int = 8) -> None:
        self.served = 0
        self.failed: list[str] = []
        self.ends: list[list[int]] = [[] for _ in range(sockets)]  # codes, by socket
        self._machine = machine
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._request, args=(keeps,)) for keeps in (True, False) * 8]
        self._threads += [threading.Thread(target=self._open, args=(ends,)) for ends in self.ends]

    def _request(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._machine.port, timeout=60)
        while not self._stopping.wait(0.02):
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                self.served += 1
                if answer.status != 200:
                    self.failed.append(f"{answer.status}, kept: {keeps}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{error!r}, kept: {keeps}")
                connection.close()
            if not keeps:
                connection.close()
        connection.close()

    def _open(self, ends: list[int]) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._machine.ws + "/ws") as ws:
                    while not self._stopping.is_set():
                        with suppress(TimeoutError):
                            ws.recv(0.1)
            except ConnectionClosed as error:
                ends.append(error.rcvd.code if error.rcvd else 0)
            except (OSError, WebSocketException) as error:
                self.failed.append(f"handshake: {error!r}")

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join()


@pytest.mark.soak
@pytest.mark.parametrize("arguments", ["inprocess", "split", "split --interfaces"])
def test_reload_under_load_fails_nothing_and_closes_each_socket_once_at_most(serve: Serve, arguments: str) -> None:
    """C14."""
    mode, *given = arguments.split()
    machine = serve(ASGI, "--workers", "2", "--drain-seconds", "1", mode=mode)
    with Load(machine) as load:
        for _ in range(4):
            done = machine.run("reload", *given)
            assert done.returncode == 0, done.stderr
    assert load.served > 0
    assert load.failed == []
    assert {code for ends in load.ends for code in ends} == {1012}
    assert max(map(len, load.ends)) <= 4


@both_modes
def test_a_stop_serves_what_it_has_accepted_and_closes_idle_connections_in_time(serve: Serve, mode: str) -> None:
    machine = serve(ASGI, "--workers", "1", mode=mode)
    silent = socket.create_connection(("127.0.0.1", machine.port), timeout=SECONDS)
    kept = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=SECONDS)
    kept.request("GET", "/")
    kept.getresponse().read()
    with machine.popen("stop") as stopping, silent, connect(machine.ws + "/ws") as ws:
        with pytest.raises(ConnectionClosed, match="1012"):
            ws.recv(SECONDS)
        kept.request("GET", "/")
        assert kept.getresponse().getheader("Connection") == "close"
        silent.sendall(request(b"/"))
        assert silent.recv(1 << 16).startswith(b"HTTP/1.1 200")
        stopping.communicate(timeout=60)
    kept.close()


def test_a_unix_socket_outlives_reloads_in_process(machine: Machine, tmp_path: Path) -> None:
    """gunicorn would remove its path."""
    (tmp_path / "app.py").write_text(textwrap.dedent(ASGI))
    machine.directory, path = tmp_path, tmp_path / "s"
    done = machine.run("start", "app:app", "--mode", "inprocess", "--workers", "1", "--bind", f"unix:{path}", "-d")
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        assert machine.run("reload").returncode == 0
        assert path.is_socket()


@both_modes
def test_a_stop_waits_for_balancers(serve: Serve, mode: str) -> None:
    """--shutdown-delay: it is not ready any more, and serves on."""
    machine = serve(ASGI, "--workers", "1", "--shutdown-delay", "3", mode=mode)
    assert readiness(machine)[0] == 200
    with machine.popen("stop") as stopping:
        until(lambda: readiness(machine) == (503, "the instance is shutting down\n"), "it is not ready")
        assert is_served(machine, 1)
        stopping.communicate(timeout=60)
    assert stopping.returncode == 0
