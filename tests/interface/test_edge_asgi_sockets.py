"""The edge behind a server that speaks ASGI: its sockets."""

import logging
from typing import Any

import pytest

from asgictl.layers.flow_control import FRAME_BYTES
from asgictl.telemetry.access_log import WebSocketLog
from asgictl.wire.messages import Accept, Close
from tests.conftest import scenario
from tests.interface.asgi_server import DENIAL, Backend, connected
from tests.interface.conftest import settled

OPEN = Accept(None, [])


@scenario
async def test_what_a_socket_is_told_is_sent_in_order() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.accept(Accept("chat", [(b"a", b"b")]))
    socket.frame("text")
    socket.frame(b"")
    socket.close(Close(4000, "bye"))
    assert client.sent == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"a", b"b")]},
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b""},
        {"type": "websocket.close", "code": 4000, "reason": "bye"},
    ]


@scenario
async def test_nothing_is_sent_before_the_accept_nor_behind_the_close() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.frame("early")
    assert (socket.is_open, socket.is_accepted) == (True, False)
    socket.accept(OPEN)
    assert (socket.is_open, socket.is_accepted) == (True, True)
    socket.close(Close(1000, ""))
    assert not socket.is_open
    socket.frame("late")
    socket.close(Close(4000, "again"))
    socket.accept(OPEN)
    assert client.types() == ["accept", "close"]
    assert client.sent[1]["code"] == 1000


@scenario
async def test_a_close_before_the_accept_refuses_with_its_response() -> None:
    client = await connected(extensions=DENIAL)
    client.backend.socket.close(Close(1000, "", 401, [(b"x-why", b"because")], b"not you"))
    assert client.sent == [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]},
        {"type": "websocket.http.response.body", "body": b"not you"},
    ]


@scenario
async def test_a_handshake_that_the_backend_refuses_at_once_is_over() -> None:
    backend = Backend()
    backend.refusal = Close(1000, "", 404)
    client = await connected(backend=backend, extensions=DENIAL)
    assert (client.running.done(), client.sent[0]["status"], client.heard) == (True, 404, [])


@scenario
async def test_frames_are_handed_on_and_then_how_it_ended() -> None:
    client = await connected()
    client.backend.socket.accept(OPEN)
    for text, data in (("a", None), ("", None), (None, b"b")):
        client.incoming.put_nowait({"type": "websocket.receive", "text": text, "bytes": data})
    await client.says({"type": "websocket.receive", "bytes": b""})
    await client.says({"type": "websocket.disconnect", "code": 4000, "reason": "bye"})
    assert client.heard == ["a", "", b"b", b"", (4000, "bye")]
    assert client.running.done()
    assert not client.backend.socket.is_open


@pytest.mark.parametrize("unsaid", [{}, {"code": None, "reason": None}])
@scenario
async def test_a_client_that_leaves_without_a_word_has_left_with_1006(unsaid: dict[str, Any]) -> None:
    client = await connected()
    await client.says({"type": "websocket.disconnect", **unsaid})
    assert client.heard == [(1006, "")]


@scenario
async def test_a_socket_that_was_closed_hears_of_its_end_alone() -> None:
    client = await connected()
    client.backend.socket.accept(OPEN)
    client.backend.socket.close(Close(4000, ""))
    await client.says({"type": "websocket.receive", "text": "crossing"})
    await client.says({"type": "websocket.disconnect", "code": 4000})
    assert client.heard == [(4000, "")]


@scenario
async def test_frames_are_not_read_while_the_socket_is_paused() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.accept(OPEN)
    socket.pause()
    await client.says(*[{"type": "websocket.receive", "text": f"{number}"} for number in range(3)])
    assert (client.heard, client.incoming.qsize()) == (["0"], 2), "what the server had in flight came"
    socket.resume()
    await settled()
    assert client.heard == ["0", "1", "2"]


@scenario
async def test_a_paused_socket_that_is_closed_hears_of_its_end() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.accept(OPEN)
    socket.pause()
    await client.says({"type": "websocket.receive", "text": "a"}, {"type": "websocket.receive", "text": "b"})
    socket.close(Close(1013, ""))
    await client.says({"type": "websocket.disconnect", "code": 1013})
    assert client.heard == ["a", (1013, "")]


@scenario
async def test_frames_that_wait_for_the_client_are_counted_empty_ones_too() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.accept(OPEN)
    client.may_write.clear()
    for frame in ("", "two", b"three"):
        socket.frame(frame)
    await settled()
    assert socket.waiting_bytes == 8 + 3 * FRAME_BYTES
    client.may_write.set()
    await settled()
    assert (socket.waiting_bytes, client.heard) == (0, ["resumed"])
    assert client.types() == ["accept", "send", "send", "send"]


@scenario
async def test_a_socket_that_cannot_be_written_is_closed_and_its_server_says_how() -> None:
    client = await connected()
    socket = client.backend.socket
    socket.accept(OPEN)
    client.error = BrokenPipeError()
    socket.frame("lost")
    client.error = None
    socket.frame("late")
    assert (socket.is_open, client.types(), client.heard) == (False, ["accept"], [])
    await client.says({"type": "websocket.disconnect", "code": 1006})
    assert client.heard == [(1006, "")]


@scenario
async def test_a_client_that_has_left_is_not_accepted() -> None:
    client = await connected()
    await client.says({"type": "websocket.disconnect", "code": 1001})
    client.backend.socket.accept(OPEN)
    assert (client.backend.socket.is_accepted, client.sent) == (False, [])


@pytest.mark.parametrize(
    ("does", "extensions", "said"),
    [
        (["accept", "leaves"], {}, ["101 open", "1001 close"]),
        (["accept", "close", "leaves"], {}, ["101 open", "4000 close"]),
        (["close", "leaves"], {}, ["403 refused"]),
        (["close", "leaves"], DENIAL, ["404 refused"]),
        (["leaves"], {}, ["1001 refused"]),
    ],
)
def test_a_socket_is_logged_when_it_opens_and_when_it_ends(
    does: list[str], extensions: dict[str, Any], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")

    @scenario
    async def run() -> None:
        client = await connected(extensions=extensions)
        socket = client.backend.socket
        socket.log = WebSocketLog(client.backend.scopes[0], "i/1")
        for each in does:
            if each == "accept":
                socket.accept(OPEN)
            elif each == "close":
                socket.close(Close(4000, "", 404))
            else:
                await client.says({"type": "websocket.disconnect", "code": 1001})

    run()
    assert [" ".join(line.split()[4:6]) for line in caplog.messages] == said
