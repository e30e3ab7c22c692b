"""What waits to be written to one WebSocket, with a server that writes when it is told."""

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

import pytest

from asgictl.interface.outbox import Outbox, denial
from asgictl.wire.messages import Accept, Close
from tests.interface.conftest import settled


class Server:
    def __init__(self, can_deny: bool = True) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.written: list[int] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.error: Exception | None = None
        self.outbox = Outbox(self._send, can_deny, self.written.append)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.may_write.wait()
        if self.error:
            raise self.error
        self.sent.append(message)

    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]


def scenario(test: Callable[[Server], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await asyncio.wait_for(test(Server()), 30)

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_all_is_written_in_order(server: Server) -> None:
    server.outbox.accept(Accept("chat", [(b"a", b"b")]))
    server.outbox.frame("text")
    server.outbox.frame(b"")
    server.outbox.close(Close(4000, "bye"))
    await settled()
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"a", b"b")]},
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b""},
        {"type": "websocket.close", "code": 4000, "reason": "bye"},
    ]


@scenario
async def test_frames_are_counted_when_they_were_written_and_nothing_else_is(server: Server) -> None:
    server.may_write.clear()
    server.outbox.accept(Accept(None, []))
    for frame in ("", "two", b"three"):
        server.outbox.frame(frame)
    server.outbox.close(Close(1000, ""))
    await settled()
    assert (server.outbox.bytes, server.written) == (8, [])
    server.may_write.set()
    await settled()
    assert (server.outbox.bytes, server.written) == (0, [0, 3, 5])


@scenario
async def test_nothing_is_written_before_the_accept_nor_behind_the_close(server: Server) -> None:
    server.outbox.frame("early")
    server.outbox.accept(Accept(None, []))
    server.outbox.close(Close(1000, ""))
    server.outbox.frame("late")
    server.outbox.close(Close(4000, "again"))
    server.outbox.accept(Accept(None, []))
    await settled()
    assert server.types() == ["accept", "close"]
    assert server.sent[1]["code"] == 1000


@scenario
async def test_a_close_before_the_accept_refuses_with_its_response(server: Server) -> None:
    server.outbox.close(Close(1000, "", 401, [(b"x-why", b"because")], b"not you"))
    await settled()
    assert server.sent == [
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]},
        {"type": "websocket.http.response.body", "body": b"not you"},
    ]


def test_a_server_that_cannot_deny_refuses_in_its_own_way() -> None:
    assert denial(Close(1000, "", 401), can_deny=False) == [{"type": "websocket.close"}]


@pytest.mark.parametrize(("status", "says_when"), [(403, False), (503, True)])
def test_only_503_says_when_to_come_again(status: int, says_when: bool) -> None:
    headers = dict(denial(Close(1000, "", status), can_deny=True)[0]["headers"])
    assert (b"retry-after" in headers) == says_when
    assert headers[b"content-length"] == b"0"


@scenario
async def test_a_client_that_has_gone_is_written_nothing_more(server: Server) -> None:
    server.outbox.accept(Accept(None, []))
    await settled()
    server.error = BrokenPipeError()
    server.outbox.frame("lost")
    server.outbox.frame("lost too")
    await settled()
    assert not server.outbox.is_open
    server.error = None
    server.outbox.frame("late")
    await settled()
    assert server.types() == ["accept"]
    assert server.written == []


@scenario
async def test_what_the_server_takes_at_once_needs_no_task(server: Server) -> None:
    server.outbox.accept(Accept(None, []))
    server.outbox.frame("a")
    assert server.types() == ["accept", "send"]
    server.may_write.clear()
    server.outbox.frame("b")
    server.outbox.frame("c")
    await settled()
    assert (server.types(), server.outbox.bytes) == (["accept", "send"], 2)
    server.may_write.set()
    await settled()
    server.outbox.frame("d")
    assert [message.get("text") for message in server.sent] == [None, "a", "b", "c", "d"]


@scenario
async def test_a_servers_fault_is_told_and_reaches_nobody_who_writes(server: Server) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what["exception"]))
    server.outbox.accept(Accept(None, []))
    server.error = ValueError("the server's")
    server.outbox.frame("a")
    server.outbox.frame("b")
    assert told == [server.error]
    assert not server.outbox.is_open


@scenario
async def test_a_write_that_fails_while_it_waits_ends_the_socket(server: Server) -> None:
    drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(_message: MutableMapping[str, Any]) -> None:
        await drained

    outbox = Outbox(send, True)
    outbox.accept(Accept(None, []))
    outbox.frame("a")
    await settled()
    drained.set_exception(ConnectionResetError())
    await settled()
    assert not outbox.is_open


@scenario
async def test_a_write_may_wait_several_times(server: Server) -> None:
    written: list[str] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        written.append(message["type"])

    outbox = Outbox(send, True)
    outbox.accept(Accept(None, []))
    outbox.frame("a")
    await settled()
    assert written == ["websocket.accept", "websocket.send"]
