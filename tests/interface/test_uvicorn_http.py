"""Writes that leave together, reads that come in slices, and offers to upgrade."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from asgictl.interface import uvicorn_http as module
from asgictl.interface.limits import HEADER_BYTES, SLICE_BYTES
from asgictl.interface.uvicorn_http import Corked, HTTPProtocol, is_handshake
from tests.conftest import scenario
from tests.interface.conftest import settled


class Transport:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def get_extra_info(self, name: str) -> None:
        """It knows nothing."""

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def abort(self) -> None:
        self.told.append("abort")

    def write_eof(self) -> None:
        self.told.append("eof")

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


def told(*turns: Callable[[Corked], object]) -> list[bytes | str]:
    """Return what a transport is told when each of these is a turn of the event loop."""

    async def run() -> list[bytes | str]:
        transport = Transport()
        corked = Corked(transport)  # type: ignore[arg-type]
        for turn in turns:
            turn(corked)
            await asyncio.sleep(0)
        return transport.told

    return asyncio.run(run())


def write_two(corked: Corked) -> None:
    corked.write(b"a")
    corked.write(b"b")


def write_and_close(corked: Corked) -> None:
    write_two(corked)
    corked.close()


def test_what_is_written_in_one_turn_leaves_together_and_in_order() -> None:
    assert told(write_two) == [b"ab"]


def test_a_later_turn_writes_again() -> None:
    assert told(write_two, write_two) == [b"ab", b"ab"]


def test_what_was_written_leaves_before_the_end() -> None:
    assert told(write_and_close) == [b"ab", "close"]


def test_the_rest_is_the_transport_s() -> None:
    assert told(lambda corked: corked.write(str(corked.is_closing()).encode())) == [b"False"]


def test_an_end_comes_behind_what_was_written() -> None:
    def write_and_end(corked: Corked) -> None:
        corked.write(b"a")
        corked.write_eof()

    assert told(write_and_end) == [b"a", "eof"]


class Sliced:
    """A parser that notes its slices, and takes as many as it may."""

    def __init__(self, corked: Corked, most: int = 1000) -> None:
        corked.protocol = self
        self.slices: list[bytes] = []
        self.most = most

    def parse(self, data: bytes) -> None:
        self.slices.append(data)

    def takes_more(self) -> bool:
        return len(self.slices) < self.most


DATA = bytes(range(256)) * (SLICE_BYTES // 64)  # four slices


def corked_transport() -> tuple[Corked, list[bytes | str]]:
    transport = Transport()
    return Corked(transport), transport.told  # type: ignore[arg-type]


@scenario
async def test_a_read_is_parsed_in_slices() -> None:
    corked, told = corked_transport()
    sliced = Sliced(corked)
    corked.receive(DATA)
    assert b"".join(sliced.slices) == DATA
    assert {len(part) for part in sliced.slices} == {SLICE_BYTES}
    assert told == []


@pytest.mark.parametrize("size", [1, len(DATA)])
@scenario
async def test_nothing_is_kept_of_what_was_parsed(size: int) -> None:
    corked, _ = corked_transport()
    Sliced(corked)
    corked.receive(DATA[:size])
    assert corked._read == b""


@scenario
async def test_a_turn_ends_when_its_time_is_over_and_nothing_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", -1)
    corked, told = corked_transport()
    sliced = Sliced(corked)
    corked.receive(DATA)
    corked.receive(b"more")  # as a transport may that was just paused
    assert (len(sliced.slices), told) == (2, ["pause"])
    await settled()
    assert b"".join(sliced.slices) == DATA + b"more"
    assert told == ["pause", "resume"]


@scenario
async def test_nothing_is_parsed_while_the_protocol_pauses_or_takes_no_more() -> None:
    corked, told = corked_transport()
    sliced = Sliced(corked, most=1)
    corked.receive(DATA)
    corked.pause_reading()
    corked.resume_reading()
    await settled()
    assert (len(sliced.slices), told) == (1, ["pause"])
    sliced.most = 1000
    corked.pause_reading()
    corked.feed()
    await settled()
    assert (len(sliced.slices), told) == (1, ["pause"])
    corked.resume_reading()
    await settled()
    assert (b"".join(sliced.slices), told) == (DATA, ["pause", "resume"])


@scenario
async def test_a_protocol_s_pause_is_the_transport_s() -> None:
    corked, told = corked_transport()
    Sliced(corked)
    corked.pause_reading()
    corked.pause_reading()
    corked.resume_reading()
    assert told == ["pause", "resume"]


@scenario
async def test_what_is_discarded_is_read_all_the_same() -> None:
    corked, told = corked_transport()
    sliced = Sliced(corked, most=0)
    corked.receive(DATA)
    corked.discard()
    corked.receive(DATA)
    await settled()
    assert (sliced.slices, told) == ([], ["pause", "resume"])


@scenario
async def test_a_closing_transport_s_bytes_are_parsed_no_more() -> None:
    corked, told = corked_transport()
    sliced = Sliced(corked, most=1)
    corked.receive(DATA)
    corked.close()
    sliced.most = 1000
    corked.feed()
    await settled()
    assert (len(sliced.slices), told) == (1, ["pause", "close"])


@scenario
async def test_a_parser_s_own_fault_ends_the_connection() -> None:
    corked, told = corked_transport()
    Sliced(corked).parse = None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        corked.receive(DATA)
    assert told == ["abort"]


HANDSHAKE = [(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"h2c, WebSocket"), (b"sec-websocket-key", b"x")]


@pytest.mark.parametrize(
    ("method", "version", "more", "expected"),
    [
        (b"GET", "1.1", [], True),
        (b"GET", "1.1", [(b"content-length", b"0")], True),
        (b"GET", "1.1", [(b"content-length", b"1")], False),
        (b"GET", "1.1", [(b"transfer-encoding", b"chunked")], False),
        (b"GET", "1.0", [], False),
        (b"POST", "1.1", [], False),
    ],
)
def test_a_handshake(method: bytes, version: str, more: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_handshake(method, version, HANDSHAKE + more) is expected


@pytest.mark.parametrize("missing", range(3))
def test_a_handshake_lacks_nothing(missing: int) -> None:
    assert not is_handshake(b"GET", "1.1", HANDSHAKE[:missing] + HANDSHAKE[missing + 1 :])


def protocol_of(application: Any) -> tuple[HTTPProtocol, Transport]:
    config = uvicorn.Config(application, interface="asgi3", lifespan="off", log_config=None, ws="none")
    protocol, transport = HTTPProtocol(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport


async def served(*pieces: bytes) -> tuple[list[tuple[str, str, bytes, list[bytes]]], list[bytes | str]]:
    """Return what an application is asked by these reads (method, path, body, offers), and the transport is told."""
    asked = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        offers = [value for name, value in scope["headers"] if name == b"upgrade"]
        asked.append((scope["method"], scope["path"], body, offers))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    protocol, transport = protocol_of(application)
    for piece in pieces:
        if not transport.is_closing():
            protocol.data_received(piece)
    await settled()
    protocol.connection_lost(None)
    return asked, transport.told


@scenario
async def test_a_body_behind_an_offer_is_a_body_wherever_it_is_cut() -> None:
    body = b"GET /b HTTP/1.1\r\n\r\n"
    head = b"PUT /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(body)
    data = head + body + b"GET /c HTTP/1.1\r\n\r\n"
    expected = [("PUT", "/a", body, [b"h2c"]), ("GET", "/c", b"", [])]
    for place in range(1, len(data)):
        assert (await served(data[:place], data[place:]))[0] == expected
    assert (await served(*(data[place : place + 1] for place in range(len(data)))))[0] == expected


@pytest.mark.parametrize(("status", "line"), [(404, b"404 Not Found"), (600, b"600 "), (999, b"999 ")])
def test_a_status_that_nobody_knows_is_written(status: int, line: bytes) -> None:
    """B6."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    @scenario
    async def run() -> None:
        protocol, transport = protocol_of(application)
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await settled()
        protocol.connection_lost(None)
        assert isinstance(transport.told[0], bytes)
        assert transport.told[0].startswith(b"HTTP/1.1 " + line + b"\r\n")

    run()


@scenario
async def test_connect_is_refused() -> None:
    asked, told = await served(b"CONNECT a:1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert (asked, told[-1]) == ([], "close")
    assert isinstance(told[0], bytes)
    assert told[0].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "begin", [b"", b"GET / HTTP/1.1\r\na: ", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: "]
)
@scenario
async def test_a_head_is_not_read_without_end(begin: bytes) -> None:
    part = (b"x" if begin else b"\r\n") * SLICE_BYTES
    _, told = await served(begin, *[part] * (HEADER_BYTES // SLICE_BYTES + 1))
    assert told[-1] == "close"


@scenario
async def test_a_body_may_be_as_long_as_it_likes() -> None:
    size = 3 * HEADER_BYTES
    asked, _ = await served(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))
    assert [len(body) for _, _, body, _ in asked] == [size]


@scenario
async def test_few_requests_wait_for_the_first() -> None:
    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while True:  # it never answers
            await receive()

    tiny = b"GET / HTTP/1.1\r\n\r\n"
    protocol, transport = protocol_of(application)
    protocol.data_received(tiny * 10_000)
    await settled()
    assert 0 < len(protocol.pipeline) <= SLICE_BYTES // len(tiny)
    assert transport.told == ["pause"]
    for task in protocol.tasks:
        task.cancel()
