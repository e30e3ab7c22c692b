"""Pings, pauses and ends of WebSockets, on raw bytes; and whole ones, on a real server."""

import asyncio
import logging
import signal
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgictl.interface import limits as bounds
from asgictl.interface.edge import Edge
from asgictl.interface.uvicorn_server import EdgeServer
from asgictl.telemetry.access_log import WebSocketLog
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import GET, HANDSHAKE, Backend, connected, masked, opened, waiting

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return bytes((CLOSE, 2 + len(reason))) + code.to_bytes(2) + reason


# Pings (RFC 6455, section 5.5.2).


@pytest.mark.parametrize("payload", [b"", b"x", b"\0" * 125])
@scenario
async def test_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    _, client, socket = opened()
    client.says(masked(PING, payload))
    assert client.hears() == bytes((PONG, len(payload))) + payload
    assert socket.frames == []


@scenario
async def test_only_the_newest_ping_is_answered_to_a_client_that_does_not_read() -> None:
    _, client, socket = opened()
    client.stops_reading()
    await settled()
    client.says(*(masked(PING, b"%d" % number) for number in range(9)))
    assert client.hears() == b""
    client.reads_again()
    assert (client.hears(), socket.told) == (b"\x8a\x018", ["resumed"])
    client.reads_again()
    assert client.hears() == b""


@scenario
async def test_a_client_is_pinged_and_closed_when_no_pong_comes() -> None:
    server, client, socket = opened(ws_ping_interval=20, ws_ping_timeout=70)
    server.passes(server.edge.ping, 19.9)
    assert client.hears() == b""
    server.passes(server.edge.ping, 20)
    ping = client.hears()
    assert (ping[:2], len(ping)) == (b"\x89\x04", 6)
    client.says(masked(PONG), masked(PONG, b"else"), masked(PONG, ping[2:]))
    server.passes(server.edge.pong, 1000)
    assert client.hears() == b""
    server.passes(server.edge.ping, 20)
    again = client.hears()
    assert again != ping
    client.says(masked(PONG, ping[2:]))
    server.passes(server.edge.pong, 70)
    assert client.hears() == close_frame(1011, b"keepalive ping timeout")
    await settled()
    assert (socket.told, client.transport.told) == ([(1011, "keepalive ping timeout")], ["eof"])
    assert server.rejections == {bounds.UNANSWERED_PING: 1}


@scenario
async def test_a_pong_may_be_waited_for_without_end() -> None:
    server, client, _ = opened(ws_ping_interval=20, ws_ping_timeout=None)
    for _ in range(3):
        server.passes(server.edge.ping, 20)
        server.passes(server.edge.pong, 1000)
        assert client.hears()[:2] == b"\x89\x04"
    assert not client.is_ended


# Pauses.


@scenario
async def test_a_client_is_not_read_while_the_application_pauses() -> None:
    server, client, socket = opened()
    socket.takes = lambda _frame: socket.client.pause()
    client.says(masked(TEXT, b"a") + masked(TEXT, b"b"), masked(TEXT, b"c"))
    await settled()
    assert (socket.frames, client.transport.is_reading, server.edge.held) == (["a"], False, {client.protocol})
    for frames in (["a", "b"], ["a", "b", "c"]):
        socket.client.resume()
        await settled()
        assert socket.frames == frames
    socket.client.resume()
    assert (client.transport.is_reading, server.edge.held) == (True, set())


@scenario
async def test_what_waits_for_the_client_is_known_while_it_does_not_read() -> None:
    _, client, socket = opened()
    client.transport.waiting = 5
    assert socket.client.waiting_bytes == 0
    client.stops_reading(10)
    await settled()
    assert socket.client.waiting_bytes == 10
    client.reads_again()
    assert (socket.client.waiting_bytes, socket.told) == (0, ["resumed"])


@scenario
async def test_a_response_that_waits_before_the_handshake_waits_for_the_client_too() -> None:
    server, backend, client = connected()
    client.says(GET + HANDSHAKE)
    client.stops_reading(10)
    backend.asked[0].answer()
    await settled()
    (socket,) = backend.opened
    assert (socket.client.waiting_bytes, server.edge.stalled.oldest()) == (10, client.protocol)
    client.reads_again()
    assert (socket.client.waiting_bytes, socket.told, server.edge.stalled.oldest()) == (0, ["resumed"], None)


# The end (RFC 6455, section 7).


@pytest.mark.parametrize(
    ("payload", "heard", "told"),
    [
        (b"", b"\x88\0", (1005, "")),
        (b"\x03\xe8", b"\x88\2\x03\xe8", (1000, "")),
        (b"\x0f\xa0why", b"\x88\5\x0f\xa0why", (4000, "why")),
    ],
)
@scenario
async def test_a_client_s_close_is_answered_and_told(payload: bytes, heard: bytes, told: tuple[int, str]) -> None:
    _, client, socket = opened()
    client.says(masked(TEXT, b"x") + masked(CLOSE, payload) + masked(TEXT, b"behind"))
    assert (client.hears(), socket.frames, socket.told) == (heard, ["x"], [told])
    assert (client.transport.told, socket.client.is_open) == (["close"], False)
    socket.client.frame("late")
    socket.close()
    await settled()
    assert (client.hears(), len(socket.told)) == (b"", 1)


@scenario
async def test_a_close_waits_for_the_client_s() -> None:
    server, client, socket = opened()
    socket.client.frame("before")
    socket.close(4000, "why")
    assert (client.hears(), socket.told) == (b"\x81\6before" + close_frame(4000, b"why"), [])
    socket.client.frame("after")
    await settled()
    assert (client.hears(), socket.told, client.is_ended) == (b"", [(4000, "why")], False)
    client.says(masked(TEXT, b"x"), masked(PING), b"\x83\x80\0\0\0\0", masked(CLOSE, b"\x0f\xa0why"))
    assert (client.hears(), socket.frames, client.transport.told) == (b"", [], ["close"])
    await settled()
    assert (len(socket.told), server.state.connections) == (1, set())


@scenario
async def test_a_client_that_does_not_answer_a_close_is_cut_off() -> None:
    server, client, socket = opened()
    socket.close()
    server.passes(server.edge.closing, bounds.CLOSE_SECONDS - 0.1)
    assert not client.is_ended
    server.passes(server.edge.closing, bounds.CLOSE_SECONDS)
    assert client.transport.told == ["abort"]


@scenario
async def test_no_ping_follows_a_close() -> None:
    server, client, socket = opened()
    client.stops_reading()
    await settled()
    client.says(masked(PING))
    socket.close()
    client.hears()
    client.reads_again()
    server.passes(server.edge.ping, 1000)
    server.passes(server.edge.pong, 1000)
    assert client.hears() == b""


@scenario
async def test_nor_one_of_the_client_s() -> None:
    server, client, _ = opened()
    client.transport.waiting = 10
    client.stops_reading(10)
    await settled()
    client.says(masked(PING), masked(CLOSE))
    assert client.hears() == b"\x88\0"
    client.reads_again()
    server.passes(server.edge.ping, 1000)
    assert client.hears() == b""


@scenario
async def test_no_second_close_follows_one() -> None:
    _, client, socket = opened(ws_max_size=10)
    socket.close(4000)
    client.hears()
    client.says(masked(TEXT, b"x" * 11))
    assert (client.hears(), client.transport.told) == (b"", ["eof"])
    await settled()
    assert socket.told == [(4000, "")]


@scenario
async def test_a_close_that_cannot_be_sent_is_an_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    _, client, socket = opened()
    socket.close(1005)
    assert client.hears() == close_frame(1011)
    assert "1005" in caplog.text


@scenario
async def test_a_paused_socket_hears_the_client_s_close_once_it_is_closed() -> None:
    _, client, socket = opened()
    socket.client.pause()
    client.says(masked(TEXT, b"x") + masked(CLOSE))
    socket.close()
    await settled()
    assert (socket.frames, client.transport.told) == ([], ["close"])


@scenario
async def test_a_connection_that_is_lost_is_told_as_uvicorn_does() -> None:
    server, client, socket = opened()
    client.says(masked(TEXT, b"x")[:4])
    client.leaves()
    assert (socket.told, socket.client.is_open) == ([(1005, "")], False)
    socket.client.frame("late")
    socket.close()
    await settled()
    assert len(socket.told) == 1
    assert server.state.connections == set()
    for deadlines in (server.edge.ping, server.edge.pong, server.edge.closing):
        assert deadlines.oldest() is None


@scenario
async def test_a_server_that_drains_closes_its_sockets_with_1012() -> None:
    server, client, socket = opened()
    server.drains()
    while not (heard := client.hears()):  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)
    assert heard == close_frame(1012)
    await settled()
    assert socket.told == [(1012, "")]


@pytest.mark.parametrize("comes_late", [False, True])
@scenario
async def test_a_handshake_is_answered_before_its_socket_is_closed(comes_late: bool) -> None:
    server, client, socket = waiting()
    server.drains()
    if comes_late:
        client = server.connect()
        client.says(HANDSHAKE)
        socket = server.backend.opened[1]
    await asyncio.sleep(0.5)
    assert (client.status, client.is_ended) == (0, False)
    socket.accept()
    assert client.hears().startswith(b"HTTP/1.1 101")
    while not (heard := client.hears()):  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)
    assert heard == close_frame(1012)


@scenario
async def test_a_handshake_that_nobody_answers_is_refused_in_time() -> None:
    server, client, _ = waiting()
    server.drains()
    server.passes(server.edge.handshake, server.backend.limits.handshake_seconds)
    assert (client.status, client.transport.told) == (503, ["eof"])


@pytest.mark.parametrize(
    ("ends", "lines"),
    [
        (lambda client, socket: (socket.accept(), socket.close(4000)), ["101 open", "4000 close"]),
        (lambda client, socket: (socket.accept(), client.says(masked(CLOSE))), ["101 open", "1005 close"]),
        (lambda client, socket: (socket.accept(), client.leaves()), ["101 open", "1005 close"]),
        (lambda client, socket: (socket.accept(), client.says(b"\x81\1x")), ["101 open", "1002 close"]),
        (lambda client, socket: socket.close(status=401), ["401 refused"]),
        (lambda client, socket: client.leaves(), ["1006 refused"]),
    ],
)
@scenario
async def test_the_log_has_the_opening_and_the_first_end(
    ends: Any, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    _, client, socket = waiting()
    socket.client.log = WebSocketLog(socket.scope, "c.1")
    ends(client, socket)
    await settled()
    client.leaves()
    told = [record.getMessage() for record in caplog.records if record.name == "asgictl.access"]
    assert [" ".join(line.partition(" c.1 ")[2].split()[:2]) for line in told] == lines


# On a real server, as a client reads it.

FRAMES: list[str | bytes] = ["text", "", b"", b"\xff\0", "\u20ac" * 50, "x" * 126, b"y" * 70_000, "text", b"text"]


@asynccontextmanager
async def serving(backend: Backend, **settings: Any) -> AsyncIterator[str]:
    """Run uvicorn with the edge; yields its URL."""
    listener = sockets.create_server(("127.0.0.1", 0))
    edge = Edge(backend, "")
    config = uvicorn.Config(
        *(edge, "127.0.0.1", 0),
        http="asgictl.interface.edge_http:HTTPProtocol",
        ws="none",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        lifespan="off",
        **settings,
    )
    server = EdgeServer(config, edge)
    task = asyncio.create_task(server._serve([listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.01)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.handle_exit(signal.SIGINT, None)
        await task


@pytest.mark.parametrize("deflate", [False, True])
@scenario
async def test_frames_arrive_as_they_were_sent(deflate: bool) -> None:
    """Also in several sockets, and compressed, which is the socket's own affair and no other's."""
    backend = Backend()
    async with (
        serving(backend, ws_per_message_deflate=deflate) as url,
        connect(url) as one,
        connect(url, compression=None) as two,
    ):
        for frame in FRAMES:
            for socket in backend.opened:
                socket.client.frame(frame)
        for client in (one, two):
            assert [await client.recv() for _ in FRAMES] == FRAMES
            for frame in FRAMES:
                await client.send(frame)
            await client.send(["in", "", "parts"])
            await (await client.ping())
        assert [socket.frames for socket in backend.opened] == [[*FRAMES, "inparts"]] * 2


@scenario
async def test_both_sides_hear_of_either_s_close() -> None:
    backend = Backend()
    async with serving(backend) as url:
        async with connect(url) as client:
            await client.close(4001, "bye")
        assert backend.opened[0].told == [(4001, "bye")]
        async with connect(url) as client:
            backend.opened[1].close(4000, "why")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "why")
        assert backend.opened[1].told == [(4000, "why")]


@scenario
async def test_a_client_hears_of_a_refusal() -> None:
    backend = Backend(accepts=False)
    async with serving(backend) as url:
        connecting = asyncio.ensure_future(connect(url).__aenter__())
        while not backend.opened:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.01)
        backend.opened[0].close(status=401, body=b"no")
        with pytest.raises(InvalidStatus) as refused:
            await connecting
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"no")


@scenario
async def test_a_server_stops_with_open_sockets_and_requests() -> None:
    backend = Backend()
    async with serving(backend, timeout_graceful_shutdown=1) as url:
        client = await connect(url).__aenter__()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(GET)
        while not backend.asked:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.2, backend.asked[0].answer)  # while it stops
    assert (await reader.read()).endswith(b"connection: close\r\n\r\nhello")
    await client.wait_closed()
    assert client.close_code == 1012
    writer.close()
