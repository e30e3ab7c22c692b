"""Culprits beside 200 sockets and 200 requests a second: what neighbours of a fault notice, on split with 3 workers."""

import argparse
import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from asgictl import Application, BackgroundMessage, Channel, Message, path
from asgictl.loadtests.servers import Server, Side, SideError, free_port, serving, wait_until_it_serves
from benchmarks import applications, numbered
from benchmarks.numbered import Load
from benchmarks.verdicts import MIB, Reading, neighbours

COMMAND = "asgictl start benchmarks.culprits:app --workers 3 --bind {bind} -d"
SOCKETS = 200
REQUESTS_PER_SECOND = 200
SETTLE_SECONDS = 3
LEAVING_SECONDS = 10
FULL_SECONDS = 10
DISK_BYTES = 60 * MIB
CLIENT_SECONDS = 20.0
FLOODING_CLIENTS = 3
FRAGMENTS = 2_400_000
HANDSHAKE = (
    b"GET /numbers HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """/hold keeps the GIL, /exit leaves, /job has a job leave."""
    match environ["PATH_INFO"]:
        case "/hold":
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "/exit":
            sys.exit(1)
        case "/job":
            Channel("exit").send({})
    return applications.wsgi(environ, start_response)


def leave(_message: Message | BackgroundMessage) -> None:
    sys.exit(1)


async def await_cancelled(_message: Message) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


app = Application(
    http=site,
    websocket=[
        path("/numbers", connect=numbered.accept, receive=numbered.count),
        path("/exit", connect=applications.accept, receive=leave),
        path("/cancelled", connect=applications.accept, receive=await_cancelled),
    ],
    background={"exit": leave},
)


def get(server: Server, path: str) -> None:
    """Ask for something that may well fail."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=CLIENT_SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while client.recv(1 << 16):
            pass


def say(server: Server, path: str) -> None:
    """Send one message on a socket of its own, which may well be closed for it."""
    with suppress(OSError, WebSocketException), connect(server.url.replace("http", "ws") + path) as ws:
        ws.send("leave")
        ws.recv(timeout=1)


def exits(server: Server) -> None:
    """A view, a job, a consumer that leave, and one that awaits what was cancelled, once a second each."""
    calls = ((get, "/exit"), (get, "/job"), (say, "/exit"), (say, "/cancelled"))
    with ThreadPoolExecutor(LEAVING_SECONDS * len(calls)) as threads:
        for _ in range(LEAVING_SECONDS):
            for call, where in calls:
                threads.submit(call, server, where)
            time.sleep(1)


def fragments(server: Server) -> None:
    """Clients that send a message of empty fragments, all of them or until they are cut off."""

    def flood(_number: int) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=CLIENT_SECONDS) as client:
            client.sendall(HANDSHAKE)
            client.recv(1 << 16)
            client.sendall(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * FRAGMENTS)
            while client.recv(1 << 16):
                pass

    with ThreadPoolExecutor(FLOODING_CLIENTS) as threads:
        list(threads.map(flood, range(FLOODING_CLIENTS)))


CULPRITS: list[tuple[str, Callable[[Server], None], float]] = [
    ("held GIL", partial(get, path="/hold"), 8),  # one request that keeps a worker's GIL, for ever if it may
    ("exits", exits, 1),
    ("fragments", fragments, 0.3),
]


def faults(_arguments: argparse.Namespace) -> Iterator[Reading]:
    for name, culprit, stall_seconds in CULPRITS:
        with serving(Side(name, COMMAND)) as server:
            with load(server) as loaded:
                culprit(server)
            yield from judged(name, loaded, stall_seconds)
    yield from disk()


@contextmanager
def load(server: Server) -> Iterator[Load]:
    """Load a server, for SETTLE_SECONDS more on either side."""
    with Load(server.url, sockets=SOCKETS, pace_seconds=1, requests_per_second=REQUESTS_PER_SECOND) as loaded:
        time.sleep(SETTLE_SECONDS)
        yield loaded
        time.sleep(SETTLE_SECONDS)


def judged(name: str, load: Load, stall_seconds: float) -> list[Reading]:
    closed = sum(load.closed.values())
    wrong = [line for line in load.wrong if "a request failed" not in line and "was closed" not in line]
    return neighbours(name, closed, wrong, load.failed, load.longest_stall_seconds, stall_seconds)


def disk() -> Iterator[Reading]:
    """Fill the run directory's file system under load; as root, who alone may mount one."""
    if os.geteuid():
        raise SideError("disk: only root can mount a tmpfs for the run directory")
    with TemporaryDirectory(prefix="ab-", dir="/tmp") as runtime:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", runtime]
        subprocess.run(mount, check=True)
        try:
            yield from filled(Server(free_port(), runtime, None))
        finally:
            subprocess.run(["umount", "-l", runtime], check=True)


def filled(server: Server) -> Iterator[Reading]:
    server.run(*COMMAND.replace("{bind}", f"127.0.0.1:{server.port}").split())
    wait_until_it_serves(server.url, "/", None, Path())
    pids = server.pids()
    try:
        with load(server) as loaded:
            filler = Path(server.runtime) / "filler"
            fill(filler)
            filler.unlink()
        yield from judged("disk", loaded, float("inf"))
        refused = []
        for command in ("status", "stop"):
            try:
                server.run("asgictl", command)
            except SideError as error:
                refused.append(str(error))
        yield Reading("disk commands", len(refused), 0, "", "; ".join(refused))
    finally:
        for pid in pids.values():
            with suppress(ProcessLookupError):  # as it should be
                os.kill(pid, signal.SIGKILL)


def fill(filler: Path) -> None:
    """Take every byte that there is, again and again, for FULL_SECONDS."""
    until = time.monotonic() + FULL_SECONDS
    with filler.open("wb", buffering=0) as file:
        while time.monotonic() < until:
            try:
                file.write(bytes(4096))
            except OSError:  # it is full, until somebody deletes something
                time.sleep(0.01)
