"""Deploys beside what is open, and the processes that requests of one connection go to."""

import http.client
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.conftest import Machine, until
from tests.faults.conftest import Serve, cases, exchange, kill, later, request

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
        return f"release {release}".encode() in exchange(machine, request(b"/"), 1)
    except OSError:
        return False


def pids_of_a_connection(port: int) -> set[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    found = set()
    for _ in range(12):
        connection.request("GET", "/pid")
        found.add(connection.getresponse().read())
    connection.close()
    return found


@cases("mode", later("Deploys fail nothing", "C11"), fails="split", passes="inprocess")
def test_a_keep_alive_connection_stays_with_a_process(serve: Serve, mode: str) -> None:
    """C11: what polls, as socket.io, finds its session again."""
    machine = serve(ASGI, "--workers", "2", mode=mode)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(pids_of_a_connection, [machine.port] * 6))
    assert [len(each) for each in found] == [1] * 6


@pytest.mark.soak
@later("Deploys fail nothing", "C12")
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
                until(lambda: is_served(machine, 2), "the first edit is served", 15)
                edit(tmp_path, 3)
                deadline = time.monotonic() + 6
                while not (served := is_served(machine, 3)) and time.monotonic() < deadline:
                    time.sleep(0.1)
        finally:
            kill(machine)
            reading.join()
    assert served


@pytest.mark.soak
@later("Deploys fail nothing", "C13")
def test_reload_returns_once_the_new_release_serves(serve: Serve, tmp_path: Path) -> None:
    """C13: the old one drains on, which `status` shows."""
    machine = serve(ASGI, "--workers", "1")
    with socket.create_connection(("127.0.0.1", machine.port), timeout=5) as client:
        client.sendall(request(b"/stream"))
        assert client.recv(1 << 16)
        edit(tmp_path, 2)
        with machine.popen("reload") as reloading:
            try:
                reloading.wait(15)
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


@pytest.mark.soak
@cases("mode", later("Deploys fail nothing", "C14"), fails="inprocess", passes="split")
def test_reload_under_load_fails_no_request(serve: Serve, mode: str) -> None:
    """C14."""
    machine = serve(ASGI, "--workers", "2", mode=mode)
    stopping, failed, served = threading.Event(), [0], [0]

    def load() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=10)
        while not stopping.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                served[0] += 1
                failed[0] += answer.status != 200
            except (OSError, http.client.HTTPException):
                failed[0] += 1
                connection.close()
        connection.close()

    clients = [threading.Thread(target=load) for _ in range(16)]
    for each in clients:
        each.start()
    try:
        for _ in range(4):
            done = machine.run("reload")
            assert done.returncode == 0, done.stderr
    finally:
        stopping.set()
        for each in clients:
            each.join()
    assert served[0] > 0
    assert failed == [0]
