"""One WebSocket of an ASGI application inside the server."""

import asyncio
from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.inprocess.asgi_websocket import ASGISocket, ClientDisconnected
from asgictl.wire.messages import Accept, Close
from tests.conftest import scenario
from tests.inprocess.clients import SocketClient
from tests.interface.conftest import settled

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
DENY = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X-A", b"b")]}


def denial(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": body, "more_body": more}


def text(frame: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": frame}


class Socket:
    """One whose application is this test."""

    def __init__(self, **limits: int) -> None:
        self.client = SocketClient()
        self.handler = ASGISocket(self.client, Limits(**limits))  # type: ignore[arg-type]
        self._ends = asyncio.Event()
        self.error: BaseException | None = None
        self.running = asyncio.ensure_future(self.handler.run(self._application, {"path": "/ws"}))

    async def _application(self, _scope: Any, receive: Any, send: Any) -> None:
        self.receive, self.send = receive, send
        await self._ends.wait()
        if self.error is not None:
            raise self.error

    async def ends(self, error: BaseException | None = None) -> None:
        """Let the application return, or raise."""
        self.error = error
        self._ends.set()
        await self.running

    @property
    def told(self) -> list[object]:
        return self.client.told


async def connecting(**limits: int) -> Socket:
    socket = Socket(**limits)
    await settled()
    assert await socket.receive() == {"type": "websocket.connect"}
    return socket


async def opened(**limits: int) -> Socket:
    socket = await connecting(**limits)
    await socket.send(ACCEPT)
    socket.told.clear()
    return socket


@scenario
async def test_a_handshake_is_accepted_with_what_the_application_says() -> None:
    socket = await connecting()
    await socket.send({**ACCEPT, "subprotocol": "a", "headers": [(b"X-A", b"b")]})
    assert socket.told == [Accept("a", [(b"x-a", b"b")])]
    with pytest.raises(RuntimeError, match="OPEN"):
        await socket.send(ACCEPT)
    await socket.ends()


@scenario
async def test_frames_are_received_in_order() -> None:
    socket = await opened()
    receiving = asyncio.ensure_future(socket.receive())
    await settled()
    assert not receiving.done()
    for frame in ("a", b"b", ""):
        socket.handler.receive(frame)
    assert await receiving == {"type": "websocket.receive", "text": "a"}
    assert await socket.receive() == {"type": "websocket.receive", "bytes": b"b"}
    assert await socket.receive() == {"type": "websocket.receive", "text": ""}
    await socket.ends()


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ({"text": "a"}, "a"),
        ({"bytes": b"a"}, b"a"),
        ({"text": None, "bytes": b""}, b""),
        ({"text": "", "bytes": None}, ""),
        ({"bytes": bytearray(b"a")}, b"a"),
    ],
)
@scenario
async def test_a_frame_is_sent_as_it_is(message: dict[str, Any], frame: object) -> None:
    socket = await opened()
    await socket.send({"type": "websocket.send", **message})
    assert (socket.told, type(socket.told[0])) == ([frame], type(frame))
    await socket.ends()


@scenario
async def test_who_sends_waits_for_a_client_that_does_not_read() -> None:
    socket = await opened()
    socket.client.waiting_bytes = 1
    sending = [asyncio.ensure_future(socket.send(text(each))) for each in "ab"]
    await settled()
    assert (socket.told, [each.done() for each in sending]) == (["a", "b"], [False, False])
    socket.client.waiting_bytes = 0
    socket.handler.resumed()
    await asyncio.gather(*sending)
    await socket.ends()


@scenario
async def test_who_sends_waits_for_nobody_once_the_client_has_left() -> None:
    socket = await opened()
    socket.client.waiting_bytes = 1
    sending = asyncio.ensure_future(socket.send(text("a")))
    await settled()
    socket.handler.left(1006, "")
    await sending
    await socket.ends()


@pytest.mark.parametrize(("limits", "size"), [({"inbox_frames": 4}, 1), ({"inbox_bytes": 40}, 10)])
@scenario
async def test_a_client_is_not_read_while_too_much_waits(limits: dict[str, int], size: int) -> None:
    socket = await opened(**limits)
    for _ in range(3):
        socket.handler.receive("x" * size)
    assert socket.told == []
    socket.handler.receive("x" * size)
    assert socket.told == ["pause"]
    for _ in range(4):
        await socket.receive()
    assert socket.told == ["pause", "resume"]
    await socket.ends()


# How it ends.


@scenario
async def test_frames_that_came_before_the_end_are_received_and_then_the_end_for_ever() -> None:
    socket = await opened()
    socket.handler.receive("a")
    socket.handler.left(4000, "why")
    assert (await socket.receive())["text"] == "a"
    for _ in range(2):
        assert await socket.receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "why"}
    await socket.ends()


@scenario
async def test_who_waits_for_a_frame_hears_the_end() -> None:
    socket = await opened()
    receiving = [asyncio.ensure_future(socket.receive()) for _ in range(2)]
    await settled()
    socket.handler.left(1006, "")
    assert [(await each)["code"] for each in receiving] == [1006, 1006]
    await socket.ends()


@scenario
async def test_a_client_that_has_left_can_be_sent_nothing_but_may_be_closed() -> None:
    socket = await opened()
    socket.handler.left(1006, "")
    with pytest.raises(ClientDisconnected):
        await socket.send(text("a"))
    await socket.send(CLOSE)
    assert socket.told == []
    await socket.ends()


@scenario
async def test_a_client_may_leave_before_it_is_accepted() -> None:
    socket = await connecting()
    socket.handler.left(1006, "")
    with pytest.raises(OSError, match="gone"):
        await socket.send(ACCEPT)
    await socket.ends()


@pytest.mark.parametrize(
    ("message", "close"), [(CLOSE, Close(1000, "")), ({**CLOSE, "code": 4000, "reason": "why"}, Close(4000, "why"))]
)
@scenario
async def test_an_application_closes_once(message: dict[str, Any], close: Close) -> None:
    socket = await opened()
    await socket.send(message)
    for late in (message, text("late")):
        with pytest.raises(RuntimeError, match="CLOSED"):
            await socket.send(late)
    socket.handler.left(close.code, close.reason)
    assert (await socket.receive())["code"] == close.code
    with pytest.raises(RuntimeError, match="CLOSED"):
        await socket.send(text("late"))
    await socket.ends()
    assert socket.told == [close]


@scenario
async def test_a_close_before_the_handshake_s_answer_refuses_it_with_403() -> None:
    socket = await connecting()
    await socket.send(CLOSE)
    await socket.ends()
    (close,) = socket.told
    assert isinstance(close, Close)
    assert close.status == 403


@scenario
async def test_a_handshake_is_refused_with_a_response() -> None:
    socket = await connecting()
    await socket.send(DENY)
    await socket.send(denial(b"no", more=True))
    assert socket.told == []
    await socket.send(denial(b"body"))
    await socket.ends()
    assert socket.told == [Close(1000, "", 401, [(b"x-a", b"b")], b"nobody")]


@scenario
async def test_a_response_that_refuses_has_a_size() -> None:
    socket = await connecting()
    await socket.send(DENY)
    with pytest.raises(ValueError, match="denial"):
        await socket.send(denial(bytes((1 << 20) + 1)))
    await socket.ends()


@pytest.mark.parametrize("message", [text("early"), denial(b""), {"type": "websocket.else"}])
@scenario
async def test_what_is_out_of_order_before_the_answer_is_a_mistake(message: dict[str, Any]) -> None:
    socket = await connecting()
    with pytest.raises(RuntimeError, match="CONNECTING"):
        await socket.send(message)
    await socket.ends()


@pytest.mark.parametrize("message", [DENY, denial(b""), ACCEPT])
@scenario
async def test_what_is_out_of_order_behind_it_too(message: dict[str, Any]) -> None:
    socket = await opened()
    with pytest.raises(RuntimeError, match="OPEN"):
        await socket.send(message)
    await socket.ends()


@pytest.mark.parametrize("error", [None, ValueError("as it is meant to")])
@scenario
async def test_what_an_application_leaves_open_is_closed(error: BaseException | None) -> None:
    socket = await opened()
    await socket.ends(error)
    (close,) = socket.told
    assert isinstance(close, Close)
    assert close.code == (1011 if error else 1000)


@pytest.mark.parametrize("error", [None, ValueError("as it is meant to")])
@pytest.mark.parametrize("begin", [[], [DENY], [DENY, denial(b"no", more=True)]])
@scenario
async def test_a_handshake_that_it_does_not_answer_is_a_500(
    begin: list[Any], error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await connecting()
    for message in begin:
        await socket.send(message)
    await socket.ends(error)
    (close,) = socket.told
    assert isinstance(close, Close)
    assert (close.status, close.body) == (500, b"")
    assert [record.getMessage() for record in caplog.records] == ["the application: WebSocket /ws failed"]
