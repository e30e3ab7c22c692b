"""What consumers and ASGI applications do with their sockets: both modes."""

import socket
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import Machine, until
from tests.faults.conftest import (
    HANG_SECONDS,
    Serve,
    Site,
    body_of,
    both_modes,
    exchange,
    frames,
    handshake,
    head,
    kill,
    logged,
    request,
    site_of,
    status_of,
)

consumers = site_of(
    """
    from asgictl import Application, Group, path


    ended = []


    def site(environ, start_response):
        start_response("200 OK", [])
        return [repr(ended).encode()]


    def flood(message):
        for _ in range(10):
            message.reply(text="x" * (1 << 20))


    class Int(int):
        pass


    STATES = {"int": lambda state: state.update({1: 2}), "nested": lambda state: state.update(a={1: 2}),
              "tuple": lambda state: state.update({(1, 2): 2}), "bytes": lambda state: state.update({b"a": 2})}


    def keep(message):
        STATES[message.text](message.state)
        message.reply(text="kept")


    def gone(message):
        ended.append(message.path)
        message.state.get("a")


    def enter(message):
        message.accept()
        message.join("in-" + message.params["room"])


    def move(message):
        inside, outside = Group("in-" + message.params["room"]), Group("out-" + message.params["room"])
        if message.text == "send, leave":
            inside.send(text="sent")
            message.leave(inside.name)
        elif message.text == "send, join":
            outside.send(text="sent")
            message.join(outside.name)
        elif message.text == "join, send":
            message.join(outside.name)
            outside.send(text="sent")
        elif message.text == "leave, send":
            message.leave(inside.name)
            inside.send(text="sent")
        elif message.text == "join":
            message.join(outside.name)
        elif message.text == "leave":
            message.leave(outside.name)
        elif message.text == "send":
            outside.send(text="sent")
        elif message.text == "end":
            message.reply(text="end")


    app = Application(
        http=site,
        websocket=[
            path("/flood", receive=flood),
            path("/state/{what}", receive=keep, disconnect=gone),
            path("/room/{room}", connect=enter, receive=move),
        ],
    )
    """,
    *("--workers", "1"),
)
closers = site_of(
    """
    from asgictl import Application, path


    def refuse(message):
        message.accept()
        if message.params["when"] == "connect":
            message.close(4000.0)


    def close(message):
        message.close(*{"float": (4000.0,), "text": ("4000",), "reason": (4000, b"why")}[message.text])


    app = Application(websocket=[path("/close/{when}", connect=refuse, receive=close)])
    """,
    *("--workers", "1"),
    hangs=True,
)
asgi = site_of(
    """
    from starlette.websockets import WebSocket, WebSocketDisconnect

    ended = []


    async def leaves(socket):
        await socket.accept()
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            await socket.close()


    async def app(scope, receive, send):
        name = scope["path"].lstrip("/")
        if scope["type"] == "http":
            body = repr(ended).encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        if name.startswith("leaves"):
            try:
                await leaves(WebSocket(scope, receive, send))
            finally:
                ended.append(name)
            return
        await receive()
        if name.startswith("denied"):
            start = {"type": "websocket.http.response.start", "status": 418}
            if name != "denied/bare":
                start["headers"] = [(b"x-a", b"1")] if name == "denied/headers" else []
            await send(start)
            await send({"type": "websocket.http.response.body", "body": b"no tea"})
        elif name == "accept/value":
            await send({"type": "websocket.accept", "headers": [(b"x", b"a\\r\\nb: c")]})
        elif name == "accept/subprotocol":
            await send({"type": "websocket.accept", "subprotocol": "a\\r\\nx: y"})
        else:
            await send({"type": "websocket.accept"})
            message = await receive()
            while message["type"] == "websocket.receive":
                kind, text = name.partition("/")[0], message["text"]
                if kind == "code":
                    await send({"type": "websocket.close", "code": {"float": 4000.0, "text": "4000"}[text]})
                elif kind == "reason":
                    await send({"type": "websocket.close", "code": 4000, "reason": b"why"})
                message = await receive()
    """,
    *("--workers", "1"),
)


CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # a client's close frame: 1000, masked with zeros


def opened(machine: Machine, path: str) -> ClientConnection:
    return connect(machine.ws + path, open_timeout=60, close_timeout=0.2, max_size=None, ping_interval=None)


def heard(client: ClientConnection, count: int, seconds: float = HANG_SECONDS) -> list[Any]:
    """Return up to so many frames, and the code with which the socket closed, if it did; a wait ends the list."""
    found: list[Any] = []
    try:
        while len(found) < count:
            found.append(client.recv(seconds))
    except TimeoutError:
        pass
    except ConnectionClosed as closed:
        found.append(closed.rcvd.code if closed.rcvd else 1006)
    return found


@both_modes
def test_ten_large_replies_reach_a_client_that_reads(consumers: Site, mode: str) -> None:
    """A21."""
    machine = consumers(mode)
    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # else the kernel takes some of them at once
        small.connect(("127.0.0.1", machine.port))
        with connect(machine.ws + "/flood", sock=small, max_size=None, close_timeout=0.2) as client:
            client.send("go")
            came = heard(client, 10)
    assert [len(each) if isinstance(each, str) else each for each in came] == [1 << 20] * 10


@pytest.mark.parametrize("what", ["int", "nested", "tuple", "bytes"])
@both_modes
def test_a_state_that_cannot_come_back_ends_its_turn(consumers: Site, mode: str, what: str) -> None:
    """A26: the turn that put it there, and no other; the disconnect consumer runs."""
    machine = consumers(mode)
    with opened(machine, f"/state/{what}") as client:
        client.send(what)
        assert heard(client, 1) == [1011]
    until(lambda: f"/state/{what}".encode() in exchange(machine, request(b"/")), "its disconnect consumer ran")


@pytest.mark.parametrize("what", ["float", "text", "reason"])
@both_modes
def test_a_close_that_cannot_be_sent_is_1011(closers: Site, mode: str, what: str) -> None:
    """C18."""
    with opened(closers(mode), "/close/receive") as client:
        client.send(what)
        assert heard(client, 1) == [1011]


@both_modes
def test_a_close_that_cannot_be_sent_refuses_a_handshake(closers: Site, mode: str) -> None:
    """C18."""
    assert status_of(head(closers(mode), handshake(b"/close/connect"))) == 500


@pytest.mark.parametrize("what", ["code/float", "code/text", "reason/bytes"])
@both_modes
def test_a_close_of_asgi_that_cannot_be_sent_is_1011(asgi: Site, mode: str, what: str) -> None:
    """C18."""
    with opened(asgi(mode), f"/{what}") as client:
        client.send(what.partition("/")[2])
        assert heard(client, 1) == [1011]


MOVES = {"send, leave": ["sent"], "send, join": [], "join, send": ["sent"], "leave, send": []}


@pytest.mark.parametrize("moves", MOVES)
@both_modes
def test_a_group_has_the_members_of_the_moment(consumers: Site, mode: str, moves: str) -> None:
    """C17: a handler's calls take effect in their order, as in Channels."""
    right = [*MOVES[moves], "end"]
    with opened(consumers(mode), f"/room/{mode}-{moves.replace(', ', '-')}") as client:
        client.send(moves)
        client.send("end")
        came = heard(client, len(right))
        came += heard(client, 1, 0.2)
    assert sorted(came) == sorted(right)


@both_modes
def test_frames_that_do_not_wait_move_in_their_order(consumers: Site, mode: str) -> None:
    """C17: whether frames share a turn must not show."""
    with opened(consumers(mode), f"/room/{mode}-frames") as client:
        for _ in range(12):
            client.socket.sendall(frames("join", "send", "leave", "end"))
            assert sorted(heard(client, 2)) == ["end", "sent"]


@pytest.mark.parametrize("what", ["bare", "empty", "headers"])
@both_modes
def test_a_denial_has_its_body(asgi: Site, mode: str, what: str) -> None:
    """B9."""
    answer = exchange(asgi(mode), handshake(b"/denied/%b" % what.encode()), HANG_SECONDS)
    assert status_of(answer) == 418
    assert b"\r\ncontent-length: 6\r\n" in answer.lower()
    assert body_of(answer) == b"no tea"


@pytest.mark.parametrize("what", ["subprotocol", "value"])
@both_modes
def test_an_accept_of_asgi_that_cannot_be_sent_is_a_500_at_once(asgi: Site, mode: str, what: str) -> None:
    """B16."""
    assert status_of(head(asgi(mode), handshake(b"/accept/%b" % what.encode()))) == 500


@pytest.mark.parametrize("how", ["closes", "cut"])
@both_modes
def test_a_close_after_the_client_left_logs_nothing(asgi: Site, mode: str, how: str) -> None:
    """B10."""
    machine = asgi(mode)
    before = logged(machine).count("Traceback")
    with socket.create_connection(("127.0.0.1", machine.port), timeout=60) as client:
        client.sendall(handshake(b"/leaves/%b" % how.encode()))
        assert status_of(client.recv(1 << 16)) == 101
        if how == "closes":
            client.sendall(CLOSE)
    until(lambda: f"leaves/{how}".encode() in exchange(machine, request(b"/")), "the application ended")
    exchange(machine, request(b"/"))
    assert logged(machine).count("Traceback") == before


STREAM = """
    import asyncio

    from starlette.responses import PlainTextResponse, StreamingResponse

    ended = []


    async def events():
        try:
            yield b"data: x\\n\\n"
            await asyncio.sleep(3600)
        finally:
            ended.append(True)


    async def app(scope, receive, send):
        response = StreamingResponse(events()) if scope["path"] == "/events" else PlainTextResponse(repr(ended))
        await response(scope, receive, send)
"""


@both_modes
def test_an_idle_stream_ends_with_its_client(serve: Serve, mode: str) -> None:
    """B11."""
    machine = serve(STREAM, "--workers", "1", mode=mode)
    with socket.create_connection(("127.0.0.1", machine.port), timeout=60) as client:
        client.sendall(request(b"/events"))
        answer = b""
        while b"data: x" not in answer and (part := client.recv(1 << 16)):
            answer += part
        assert status_of(answer) == 200
    try:
        until(lambda: b"True" in exchange(machine, request(b"/")), "the stream has ended", HANG_SECONDS)
    except AssertionError:
        kill(machine)
        raise
