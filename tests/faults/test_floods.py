"""A10: no client keeps an event loop. Each floods with the smallest things there are, beside a neighbour that pings."""

import socket
import struct
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
from websockets.sync.client import connect

from asgictl.config import Limits
from tests.conftest import MODES, Machine, new_machine

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        count = 0
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "count":
                await send({"type": "websocket.send", "text": f"{count}"})
            count += 1
    else:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        body = f"{scope['path']} {size};".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""
SECONDS = 60.0
STALL_SECONDS = 2.0  # of CPU, that a busy machine does not make more; generous: make bars measures it
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, CONTINUATION, PING, PONG, FIN = 1, 0, 9, 10, 0x80


def frame(first_byte: int, data: bytes = b"") -> bytes:
    """Return a client's short frame, masked with zeros."""
    return bytes([first_byte, 0x80 | len(data)]) + bytes(4) + data


COUNT = frame(FIN | TEXT, b"count")


@pytest.fixture(scope="module", params=MODES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("floods")
    (directory / "app.py").write_text(textwrap.dedent(APPLICATION))
    with new_machine() as machine:
        machine.directory = directory
        machine.start("app:app", "--mode", request.param, "--workers", "1")
        yield machine


@pytest.fixture(scope="module")
def holder(served: Machine) -> psutil.Process:
    """The process that holds the connections."""
    return psutil.Process(next(each["pid"] for each in served.status()["ready"] if each["role"] != "worker"))


@pytest.fixture(autouse=True)
def neighbour(served: Machine, holder: psutil.Process) -> Iterator[None]:
    """A socket on the same event loop: it is never left alone for long, and never closed."""

    def used() -> float:
        times = holder.cpu_times()
        return float(times.user + times.system)

    begun, stopping, stalls = threading.Event(), threading.Event(), [0.0]

    def ping() -> None:
        with connect(served.ws) as ws:
            while not stopping.is_set():
                began = used()
                assert ws.ping().wait(SECONDS), "no pong came"
                stalls.append(used() - began)
                begun.set()
                time.sleep(0.005)

    with ThreadPoolExecutor(1) as thread:
        pinging = thread.submit(ping)
        try:
            assert begun.wait(SECONDS)
            yield
        finally:
            stopping.set()
        pinging.result()
    print(f"longest stall of a neighbour: {max(stalls):.3f} s of {len(stalls)} pings")
    assert max(stalls) < STALL_SECONDS


def connected(machine: Machine) -> socket.socket:
    return socket.create_connection(("127.0.0.1", machine.port), timeout=SECONDS)


@contextmanager
def websocket(machine: Machine) -> Iterator[socket.socket]:
    with connected(machine) as client:
        client.sendall(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        yield client


def until_end(client: socket.socket) -> bytes:
    """Return what came until the server ended the connection, for which it has SECONDS."""
    came = b""
    try:
        while part := client.recv(1 << 16):
            came += part
    except ConnectionResetError:
        pass
    return came


def read_until(client: socket.socket, end: bytes) -> bytes:
    came = b""
    while not came.endswith(end):
        part = client.recv(1 << 16)
        assert part, f"closed behind {came[-100:]!r}"
        came += part
    return came


class Sending:
    """Sends data from a thread of its own, again and again when it is `endless`, until the server ends that."""

    def __init__(self, client: socket.socket, data: bytes, *, endless: bool = False) -> None:
        self._client, self._data, self._endless = client, data, endless
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the server takes what nobody will read"

    def _run(self) -> None:
        try:
            self._client.sendall(self._data)
            while self._endless:
                self._client.sendall(self._data)
        except OSError:  # reset, as it should be
            pass


@pytest.mark.parametrize("data", [b"", b"x"])
def test_a10_a_message_of_very_many_fragments_is_1009_though_the_client_never_stops(
    served: Machine, data: bytes
) -> None:
    with websocket(served) as client:
        client.sendall(frame(TEXT))
        with Sending(client, frame(CONTINUATION, data) * 200_000, endless=True):
            came = until_end(client)
            client.close()
    assert came[:1] == b"\x88"
    assert struct.unpack("!H", came[2:4]) == (1009,)


def test_a10_as_many_fragments_as_are_promised_are_a_message(served: Machine) -> None:
    message = frame(TEXT, b"c") + frame(CONTINUATION) * (Limits().fragments - 2) + frame(FIN | CONTINUATION, b"ount")
    with websocket(served) as client:
        client.sendall(message * 2)
        assert read_until(client, b"\x81\x011") == b"\x81\x010\x81\x011"


@pytest.mark.parametrize(
    ("flood", "count"),
    [
        pytest.param(frame(FIN | TEXT) * 10_000, 10_000, id="messages"),
        pytest.param(frame(FIN | PONG) * 200_000, 0, id="pongs"),
        pytest.param((frame(TEXT) + frame(FIN | PING) * 500 + frame(FIN | CONTINUATION)) * 20, 20, id="within"),
    ],
)
def test_a10_a_flood_of_frames_is_served(served: Machine, flood: bytes, count: int) -> None:
    with websocket(served) as client, Sending(client, flood + COUNT):
        read_until(client, b"\x81%c%d" % (len(str(count)), count))


@pytest.mark.parametrize("reads", [True, False])
def test_a10_a_flood_of_pings_is_answered(served: Machine, reads: bool) -> None:
    """One that reads nothing meanwhile gets fewer pongs, the newest among them."""
    pings = 200_000
    with websocket(served) as client:
        if reads:
            with Sending(client, frame(FIN | PING) * pings + COUNT):
                came = read_until(client, b"\x81\x010")
        else:
            client.sendall(frame(FIN | PING, b"x" * 100) * pings + frame(FIN | PING, b"last") + COUNT)
            came = read_until(client, b"\x81\x010")
            assert b"\x8a\x04last" in came
    assert came.count(b"\x8a") <= pings + 1


def test_a10_a_thousand_requests_in_one_read_are_answered_in_order(served: Machine) -> None:
    paths = [f"/{number}" for number in range(1000)]
    requests = "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths).encode()
    with connected(served) as client, Sending(client, requests):
        came = read_until(client, b"\r\n\r\n/999 0;").decode()
    assert [part.rsplit("\n", 1)[1] for part in came.split(" 0;")[:-1]] == paths


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"a:b\r\n" * 1_000_000, id="tiny headers"),
        pytest.param(b"a: " + b"b" * 5_000_000, id="one header"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 1_000_000, id="trailers"),
    ],
)
def test_a10_a_head_without_end_is_refused(served: Machine, head: bytes) -> None:
    with connected(served) as client, Sending(client, b"POST / HTTP/1.1\r\nHost: a\r\n" + head):
        came = until_end(client)
    assert came.startswith(b"HTTP/1.1 431") or not came, "a reset may overtake the answer"


def test_a10_chunks_of_one_byte_are_a_body(served: Machine) -> None:
    chunks = 100_000
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(served) as client, Sending(client, head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"):
        read_until(client, b"/x %d;" % chunks)
