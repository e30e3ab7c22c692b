"""A WebSocket that goes from one server to another, over real sockets and on both event loops, and what keeps it."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asgictl.interface.edge import Standing
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.wire.messages import SERVICE_RESTART, Close
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import HANDSHAKE, Backend, Client, Opened, Server, masked, opened

TEXT, CLOSE, PING, PONG, FIN = 0x81, 0x88, 0x89, 0x8A, 0x80
Run = Callable[[Coroutine[Any, Any, None]], None]


class Live:
    """A client of a server, over a socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: Any  # the server's

    async def open(self, server: Server) -> None:
        ours, theirs = socket.socketpair()
        _, http = await asyncio.get_running_loop().connect_accepted_socket(server.protocol, ours)
        self.reader, self.writer = await asyncio.open_connection(sock=theirs)
        self.writer.write(HANDSHAKE)
        await self.reader.readuntil(b"\r\n\r\n")
        self.protocol = http.transport.get_protocol()

    async def hears(self, first: int) -> bytes:
        """Return the payload of the next frame, which begins like this."""
        head = await self.reader.readexactly(2)
        assert head[0] == first
        return await self.reader.readexactly(head[1])


async def told(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def take(server: Server, standing: Standing, from_: Opened) -> tuple[WebSocketProtocol, Opened]:
    """Serve in a second server what stands suspended in the first."""
    server.edge.adopt(server.config, server.state)
    protocol = WebSocketProtocol(server.edge, server.state, server.config)
    handler = Opened(from_.scope, protocol)
    begun: list[bool] = []
    protocol.restore(from_.scope, standing.unread, handler, lambda: begun.append(bool(handler.frames)))
    sock = socket.socket(fileno=standing.descriptor)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    await asyncio.sleep(0.01)  # so long that what waits in the socket is read
    assert begun == [False]
    return protocol, handler


async def moves() -> None:
    old, new, live = Server(Backend()), Server(Backend()), Live()
    await live.open(old)
    (before,) = old.backend.opened
    live.writer.write(masked(TEXT, b"1"))
    await told(lambda: before.frames == ["1"])
    standing = live.protocol.suspend()
    standing = standing._replace(descriptor=os.dup(standing.descriptor))
    live.writer.write(masked(TEXT, b"2") + masked(PING, b"?"))
    await settled()
    assert before.frames == ["1"], "it read on"
    live.protocol.let_go()
    await asyncio.sleep(0.01)  # so long that the first server's end of it would have been seen
    protocol, after = await take(new, standing, before)
    await told(lambda: after.frames == ["2"])
    assert await live.hears(PONG) == b"?"
    protocol.frame("3")
    assert await live.hears(TEXT) == b"3"
    assert not old.state.connections
    assert len(new.state.connections) == 1
    assert before.told == [], "the first server's application noticed"
    protocol.close(Close(SERVICE_RESTART, ""))
    assert await live.hears(CLOSE) == SERVICE_RESTART.to_bytes(2)
    live.writer.close()
    await told(lambda: not new.state.connections)
    await settled()
    assert after.told == [(SERVICE_RESTART, "")]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_socket_moves_and_its_client_notices_nothing(run: Run) -> None:
    run(moves())


async def comes_back() -> None:
    server, live = Server(Backend()), Live()
    await live.open(server)
    (handler,) = server.backend.opened
    await told(lambda: live.protocol.suspend() is not None)
    live.writer.write(masked(TEXT, b"1"))
    await settled()
    assert handler.frames == []
    live.protocol.wake()
    await told(lambda: handler.frames == ["1"])
    live.protocol.frame("2")
    assert await live.hears(TEXT) == b"2"
    live.writer.close()
    await told(lambda: handler.told)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_socket_that_nobody_takes_goes_on(run: Run) -> None:
    run(comes_back())


@scenario
async def test_a_message_of_which_fragments_are_missing_keeps_a_socket() -> None:
    _, client, _ = opened()
    client.says(masked(TEXT & ~FIN, b"frag"))
    assert client.protocol.suspend() is None
    client.says(masked(FIN, b"ment"))
    assert client.protocol.suspend() is not None


@scenario
async def test_a_frame_that_is_not_whole_and_what_was_not_parsed_go_along() -> None:
    _, client, socket = opened()
    client.says(masked(TEXT, b"half")[:-1])
    assert client.protocol.suspend().unread == masked(TEXT, b"half")[:-1]
    client.protocol.wake()
    client.says(masked(TEXT, b"half")[-1:])
    assert socket.frames == ["half"]
    socket.takes = lambda _frame: client.protocol.pause()
    client.says(masked(TEXT, b"1") + masked(TEXT, b"2") + masked(TEXT, b"3")[:3])
    assert socket.frames == ["half", "1"]
    assert client.protocol.suspend().unread == masked(TEXT, b"2") + masked(TEXT, b"3")[:3]


@scenario
async def test_a_ping_without_its_pong_yet_keeps_no_socket() -> None:
    _, client, _ = opened()
    client.protocol.send_ping()
    ping = client.hears()
    assert client.protocol.suspend() is not None
    client.protocol.wake()
    client.says(masked(PONG, ping[2:]))
    assert client.protocol.is_open


@scenario
async def test_what_its_client_has_not_taken_keeps_a_socket() -> None:
    _, client, _ = opened()
    client.transport.waiting = 1
    assert client.protocol.suspend() is None
    client.transport.waiting = 0
    assert client.protocol.suspend() is not None


@scenario
async def test_what_is_not_open_or_ends_in_tls_keeps_a_socket() -> None:
    server = Server(Backend(accepts=False))
    waiting = server.connect()
    waiting.says(HANDSHAKE)
    assert waiting.protocol.suspend() is None
    secret: Client = Server(Backend()).connect(is_secure=True)
    secret.says(HANDSHAKE)
    assert secret.status == 101
    assert secret.protocol.suspend() is None
    _, closing, socket = opened()
    socket.close()
    assert closing.protocol.suspend() is None


@scenario
async def test_a_suspended_socket_sends_no_pings() -> None:
    server, client, _ = opened()
    client.protocol.suspend()
    server.passes(server.edge.ping, 1000)
    assert client.hears() == b""
    client.protocol.wake()
    server.passes(server.edge.ping, 1000)
    assert client.hears()[0] == PING
