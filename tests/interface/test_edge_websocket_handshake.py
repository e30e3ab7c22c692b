"""Handshakes of WebSockets, on raw bytes: what they say, who answers them, and what comes behind them."""

import pytest

from asgictl.interface import limits as bounds
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import HANDSHAKE, Backend, Server, connected, masked, opened, waiting

TEXT, PING = 0x81, 0x89
OPENED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


def with_headers(*headers: bytes) -> bytes:
    return HANDSHAKE[:-2] + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


@scenario
async def test_a_handshake_is_one_call_and_its_answer_is_written_at_once() -> None:
    server, client, socket = waiting(with_headers(b"Sec-WebSocket-Protocol: a, b", b"Sec-WebSocket-Protocol: c"))
    server.state.default_headers = [(b"date", b"today")]
    scope = socket.scope
    assert (scope.method, scope.scheme, scope.path, scope.subprotocols) == ("", "ws", "/ws", ["a", "b", "c"])
    assert (scope.client, scope.server) == (("192.0.2.1", 5000), ("192.0.2.2", 80))
    assert (client.hears(), socket.client.is_accepted) == (b"", False)
    socket.client.frame("early")
    assert client.hears() == b""
    socket.accept("b", (b"x-a", b"c"))
    head = client.hears()
    assert head.startswith(OPENED)
    assert head.removeprefix(OPENED) == b"Sec-WebSocket-Protocol: b\r\nx-a: c\r\ndate: today\r\n\r\n"
    assert (socket.client.is_accepted, socket.client.is_open) == (True, True)
    socket.accept()
    assert client.hears() == b""


@scenario
async def test_websocket_is_asked_for_in_a_list_too() -> None:
    _, client, _ = waiting(HANDSHAKE.replace(b"websocket", b"h2c, WebSocket"))
    assert client.hears() == b""


@scenario
async def test_a_secure_socket_is_told_of() -> None:
    server = Server(Backend())
    server.connect(is_secure=True).says(HANDSHAKE)
    assert server.backend.opened[0].scope.scheme == "wss"


BAD = {
    HANDSHAKE.replace(b"Version: 13", b"Version: 12"): 426,
    HANDSHAKE.replace(b"Sec-WebSocket-Version: 13\r\n", b""): 400,
    HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"): 400,
    with_headers(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="): 400,
    HANDSHAKE.replace(b"Host: a\r\n", b""): 400,
}


@pytest.mark.parametrize("data", BAD)
@scenario
async def test_a_bad_handshake_is_refused_without_asking_anybody(data: bytes) -> None:
    """RFC 6455, section 4.2.2."""
    server, backend, client = connected()
    client.says(data + masked(TEXT, b"x"))
    await settled()
    assert (client.status, backend.opened, client.transport.told) == (BAD[data], [], ["eof"])
    assert client.transport.data.lower().count(b"connection: close\r\n") == 1
    assert len(client.body) == int(client.hears().lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    await settled()
    assert server.state.connections == set()


@pytest.mark.parametrize("at_once", [True, False])
@scenario
async def test_frames_before_the_answer_wait_for_it(at_once: bool) -> None:
    frames = masked(PING) + masked(TEXT, b"x")
    server, client, socket = waiting(HANDSHAKE + (frames if at_once else b""))
    client.says(b"" if at_once else frames)
    await settled()
    assert (socket.frames, client.hears(), client.transport.is_reading) == ([], b"", False)
    socket.accept()
    await settled()
    assert client.hears().partition(b"\r\n\r\n")[2] == b"\x8a\0"
    assert (socket.frames, client.transport.is_reading, server.edge.held) == (["x"], True, set())


@scenario
async def test_much_behind_a_handshake_waits_too() -> None:
    _, _, socket = waiting(HANDSHAKE + masked(TEXT, b"x" * 1000) * 200)
    socket.accept()
    while len(socket.frames) < 200:
        await settled()
    assert set(socket.frames) == {"x" * 1000}


@pytest.mark.parametrize("place", range(1, len(HANDSHAKE) + 7, 10))
@scenario
async def test_a_handshake_may_be_cut_anywhere(place: int) -> None:
    _, backend, client = connected()
    data = HANDSHAKE + masked(TEXT, b"x")
    client.says(data[:place], data[place:])
    await settled()
    assert backend.opened[0].frames == ["x"]


@scenario
async def test_a_handshake_may_be_refused_with_a_response() -> None:
    _, client, socket = waiting()
    socket.close(status=401, headers=[(b"x-a", b"b")], body=b"no")
    head, _, body = client.hears().partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 401 Unauthorized\r\nx-a: b\r\ncontent-length: 2\r\nconnection: close"
    assert (body, client.transport.told, socket.told) == (b"no", ["eof"], [])
    await settled()
    assert (socket.told, socket.client.is_open, socket.client.is_accepted) == ([(1006, "")], False, False)
    socket.accept()
    assert client.hears() == b""


@scenario
async def test_a_refusal_with_503_says_when_to_come_again() -> None:
    _, client, socket = waiting()
    socket.close(status=503)
    assert b"retry-after: 1\r\n" in client.hears()


@scenario
async def test_a_handshake_that_nobody_answers_in_time_is_refused() -> None:
    server, client, socket = waiting()
    server.passes(server.edge.handshake, 9.9)
    assert client.hears() == b""
    server.passes(server.edge.handshake, 10)
    assert (client.status, client.body) == (503, b"No worker answered in time.\n")
    await settled()
    assert (socket.told, client.transport.told) == ([(1006, "")], ["eof"])
    assert server.rejections == {bounds.HANDSHAKE_LATE: 1}


@scenario
async def test_one_that_is_answered_has_no_such_time() -> None:
    server, client, _ = opened()
    for deadlines in (server.edge.handshake, server.edge.header, server.edge.first_byte, server.edge.keep_alive):
        server.passes(deadlines, 1000)
    assert not client.is_ended


@scenario
async def test_a_client_may_leave_before_its_handshake_is_answered() -> None:
    server, client, socket = waiting()
    client.leaves()
    assert socket.told == [(1006, "")]
    socket.accept()
    socket.close()
    server.passes(server.edge.handshake, 1000)
    assert client.hears() == b""
