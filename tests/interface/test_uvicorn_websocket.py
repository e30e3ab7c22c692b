"""Frames that are encoded once, on a real server, as a client reads them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asgictl.interface import uvicorn_websocket as module
from asgictl.interface.limits import FRAGMENTS
from asgictl.interface.uvicorn_http import HTTPProtocol
from asgictl.interface.uvicorn_websocket import WebSocketProtocol, encoded
from tests.conftest import free_port, scenario

FRAMES: list[str | bytes] = ["text", "", b"", b"\xff\0", "\u20ac" * 50, "x" * 126, b"y" * 70_000, "text", b"text"]


@asynccontextmanager
async def serving(application: Any, *, deflate: bool = False) -> AsyncIterator[str]:
    """Run uvicorn with the protocol; yields its URL."""
    port = free_port()
    config = uvicorn.Config(
        application,
        port=port,
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        log_config=None,
        lifespan="off",
        ws_per_message_deflate=deflate,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest.mark.parametrize("deflate", [False, True])
@scenario
async def test_frames_arrive_as_they_were_sent(deflate: bool) -> None:
    """Also in several sockets, and compressed, which is the socket's own affair and no other's."""
    sends: list[Any] = []

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.append(send)
        await receive()

    async with serving(application, deflate=deflate) as url, connect(url) as one, connect(url, compression=None) as two:
        for frame in FRAMES:
            message = {"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}
            for send in sends:
                await send(message)
        for client in (one, two):
            assert [await client.recv() for _ in FRAMES] == FRAMES


@scenario
async def test_a_socket_that_has_ended_takes_no_frame() -> None:
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            ended.set_result(error)

    async with serving(application) as url:
        async with connect(url):
            pass
        assert isinstance(await ended, OSError)


@scenario
async def test_nothing_follows_a_close() -> None:
    refused: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "before"})
        await send({"type": "websocket.close", "code": 4000})
        try:
            await send({"type": "websocket.send", "text": "after"})
        except RuntimeError as error:
            refused.set_result(error)

    async with serving(application) as url, connect(url) as client:
        assert await client.recv() == "before"
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4000
    assert isinstance(await refused, RuntimeError)


def test_a_frame_that_many_get_is_encoded_once() -> None:
    frame = "x" * 10
    assert encoded(frame) is encoded(frame)
    assert encoded("x") == b"\x81\x01x"
    assert encoded(b"x") == b"\x82\x01x"


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@pytest.mark.parametrize("deflate", [False, True])
@scenario
async def test_a_message_has_so_many_fragments_at_most(deflate: bool) -> None:
    compression = "deflate" if deflate else None
    async with serving(echo, deflate=deflate) as url, connect(url, compression=compression) as client:
        await client.send(["x"] * (FRAGMENTS - 1))  # the client adds an empty one, for the end
        assert await client.recv() == "x" * (FRAGMENTS - 1)
        with suppress(ConnectionClosed):
            await client.send(["x"] * FRAGMENTS)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "over 1024 fragments")


@scenario
async def test_a_client_that_does_not_leave_a_failed_socket_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.1)
    async with serving(echo) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x83\x80\0\0\0\0")  # no opcode
        assert (await reader.read())[2:4] == b"\x03\xea"
        with suppress(ConnectionError):
            while True:  # within the scenario's deadline
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("at_once", [True, False])
@scenario
async def test_frames_before_the_answer_wait_for_it(at_once: bool) -> None:
    may_accept = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await may_accept.wait()
        await echo(scope, receive, send)

    frames = b"\x89\x80\0\0\0\0" + b"\x81\x81\0\0\0\0x"
    async with serving(application) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(HANDSHAKE + (frames if at_once else b""))
        await asyncio.sleep(0.05)
        writer.write(b"" if at_once else frames)
        await asyncio.sleep(0.05)
        may_accept.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(5) == b"\x8a\0\x81\x01x"
        writer.close()
