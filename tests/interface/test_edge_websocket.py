"""Frames of one client on raw bytes, without a socket: what reaches the application, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame as ClientFrame
from websockets.frames import Opcode
from websockets.uri import parse_uri

from asgictl.interface import limits as bounds
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import HANDSHAKE, Backend, Client, Opened, Server, masked, opened

TEXT, BINARY, CLOSE, PING, PONG, CONT = 0x81, 0x82, 0x88, 0x89, 0x8A, 0x80
FIN = 0x80


def closed(data: bytes) -> tuple[int, str]:
    """Return code and reason of the one close frame that a client heard."""
    assert data[0] == CLOSE
    assert len(data) == 2 + data[1]
    return int.from_bytes(data[2:4]), data[4:].decode()


FRAMES: dict[bytes, list[str | bytes]] = {
    masked(TEXT, b"text"): ["text"],
    masked(TEXT): [""],
    masked(BINARY): [b""],
    masked(BINARY, b"\xff\0"): [b"\xff\0"],
    masked(TEXT, "\u20ac".encode() * 50): ["\u20ac" * 50],
    masked(TEXT, b"x" * 126): ["x" * 126],
    masked(BINARY, b"y" * 70_000): [b"y" * 70_000],
    masked(TEXT & ~FIN, b"a") + masked(PING) + masked(0, b"b") + masked(PONG) + masked(CONT, b"c"): ["abc"],
    masked(BINARY & ~FIN) + masked(CONT): [b""],
    masked(TEXT & ~FIN, b"\xe2\x82") + masked(CONT, b"\xac"): ["\u20ac"],
}


@scenario
async def test_messages_reach_the_application_as_they_were_sent() -> None:
    _, client, socket = opened()
    client.says(*FRAMES)
    assert socket.frames == [frame for frames in FRAMES.values() for frame in frames]
    _, client, socket = opened()
    client.says(b"".join(FRAMES))
    await settled()
    assert socket.frames == [frame for frames in FRAMES.values() for frame in frames]


SHORT = [data for data in FRAMES if len(data) < 1000]


@pytest.mark.parametrize("data", SHORT)
@scenario
async def test_a_message_is_the_same_wherever_it_is_cut(data: bytes) -> None:
    stream = data + masked(TEXT, b"behind")
    for place in range(1, len(stream)):
        _, client, socket = opened()
        client.says(stream[:place], stream[place:])
        assert socket.frames == [*FRAMES[data], "behind"]
    _, client, socket = opened()
    client.says(*(stream[place : place + 1] for place in range(len(stream))))
    assert socket.frames == [*FRAMES[data], "behind"]


@given(st.lists(st.sampled_from([*FRAMES]), max_size=4), st.booleans(), st.data())
def test_so_are_many_messages_wherever_they_are_cut_and_wherever_reading_pauses(
    sent: list[bytes], pauses: bool, data: st.DataObject
) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))

    @scenario
    async def run() -> None:
        _, client, socket = opened()
        if pauses:
            socket.takes = lambda _frame: socket.client.pause()
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            client.says(stream[begin:end])
        expected = [frame for frames in sent for frame in FRAMES[frames]]
        for number in range(len(expected)):
            if pauses:
                assert socket.frames == expected[: number + 1]
            socket.client.resume()
            await settled()
        assert socket.frames == expected

    run()


@scenario
async def test_what_the_application_sends_is_one_frame_each() -> None:
    _, client, socket = opened()
    frames: list[str | bytes] = ["text", "", b"", b"\xff\0", "x" * 126, b"y" * 70_000]
    for frame in frames:
        socket.client.frame(frame)
    expected = b"\x81\4text" + b"\x81\0" + b"\x82\0" + b"\x82\2\xff\0" + b"\x81\x7e\0\x7e" + b"x" * 126
    assert client.hears() == expected + b"\x82\x7f\0\0\0\0\0\1\x11\x70" + b"y" * 70_000


# What a client may not send.

FAILURES = {
    "an unmasked frame": (b"\x81\1x", 1002),
    "an unmasked ping": (b"\x89\0", 1002),
    "an unmasked close": (b"\x88\0", 1002),
    "a reserved bit": (masked(TEXT | 0x40, b"x"), 1002),
    "another reserved bit": (masked(TEXT | 0x10, b"x"), 1002),
    "no opcode": (masked(0x83, b"x"), 1002),
    "no control frame's opcode": (masked(0x8B), 1002),
    "a fragmented ping": (masked(PING & ~FIN), 1002),
    "a long ping": (masked(PING, b"x" * 126), 1002),
    "a continuation of nothing": (masked(CONT, b"x"), 1002),
    "a message within a message": (masked(TEXT & ~FIN, b"x") + masked(TEXT, b"y"), 1002),
    "a fragment within a message": (masked(TEXT & ~FIN, b"x") + masked(BINARY & ~FIN, b"y"), 1002),
    "a close frame of one byte": (masked(CLOSE, b"x"), 1002),
    "a close code that nobody may send": (masked(CLOSE, b"\x03\xed"), 1002),
    "text that is no UTF-8": (masked(TEXT, b"\xff"), 1007),
    "fragments that are no UTF-8": (masked(TEXT & ~FIN, b"\xe2") + masked(CONT, b"x"), 1007),
}


@pytest.mark.parametrize("failure", FAILURES)
@scenario
async def test_what_a_client_may_not_send_fails_the_connection(failure: str) -> None:
    """RFC 6455, section 7.1.7; nothing that follows is heard."""
    server, client, socket = opened()
    data, code = FAILURES[failure]
    client.says(data + masked(TEXT, b"behind"), masked(PING))
    assert closed(client.hears())[0] == code
    assert (client.transport.told, socket.frames, socket.client.is_open) == (["eof"], [], False)
    await settled()
    assert [told[0] for told in socket.told] == [code]  # type: ignore[index]
    socket.client.frame("late")
    socket.close()
    assert client.hears() == b""
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    await settled()
    assert (client.transport.told, server.state.connections) == (["eof", "abort"], set())
    assert len(socket.told) == 1


@scenario
async def test_a_control_frame_within_a_message_may_fail_it() -> None:
    _, client, socket = opened()
    client.says(masked(TEXT & ~FIN, b"x"), masked(PING, b"x" * 126))
    assert closed(client.hears())[0] == 1002
    assert socket.frames == []


# How large a message is.


@pytest.mark.parametrize("pieces", [[10], [4, 6], [10, 0], [0, 10], [5, 0, 5]])
@pytest.mark.parametrize("more", [0, 1])
@scenario
async def test_a_message_s_size_is_that_of_all_its_fragments(pieces: list[int], more: int) -> None:
    _, client, socket = opened(ws_max_size=10)
    sizes = [*pieces[:-1], pieces[-1] + more]
    for number, size in enumerate(sizes):
        first = BINARY & ~FIN if number == 0 else 0
        client.says(masked(first | (FIN if number == len(sizes) - 1 else 0), bytes(size)))
    if more:
        assert closed(client.hears()) == (1009, "over 10 bytes")
        assert socket.frames == []
    else:
        assert socket.frames == [bytes(10)]
        client.says(masked(BINARY, bytes(10)))
        assert socket.frames == [bytes(10)] * 2


@pytest.mark.parametrize("before", [b"", masked(BINARY & ~FIN, bytes(5))])
@scenario
async def test_it_is_counted_at_a_frame_s_header(before: bytes) -> None:
    _, client, _ = opened(ws_max_size=1000)
    client.says(before)
    assert client.hears() == b""
    client.says(masked(CONT if before else BINARY, bytes(1001 - len(before) // 2))[:8])
    assert closed(client.hears())[0] == 1009


@scenario
async def test_a_size_of_63_bits_is_too_large() -> None:
    _, client, _ = opened()
    client.says(b"\x82\xff\x7f" + b"\xff" * 7 + b"\1\2\3\4")
    assert closed(client.hears())[0] == 1009


@pytest.mark.parametrize("payload", [b"", b"x"])
@scenario
async def test_a_message_has_so_many_fragments_at_most(payload: bytes) -> None:
    server, client, socket = opened(fragments=3)
    client.says(masked(TEXT & ~FIN, payload), masked(0, payload), masked(CONT, payload))
    assert socket.frames == [(payload * 3).decode()]
    client.says(masked(TEXT & ~FIN, payload), masked(0, payload), masked(PING), masked(0, payload))
    assert closed(client.hears()[2:]) == (1009, "over 3 fragments")
    assert server.rejections == {bounds.FRAGMENTED: 1}


# permessage-deflate (RFC 7692), where the user turns it on.


def deflating() -> tuple[Server, Client, Opened, ClientProtocol]:
    """Return a socket whose client has agreed on compression."""
    protocol = ClientProtocol(parse_uri("ws://a/ws"), extensions=[ClientPerMessageDeflateFactory()])
    protocol.send_request(protocol.connect())
    server = Server(Backend(fragments=3), ws_per_message_deflate=True, ws_max_size=1000)
    client = server.connect()
    client.says(b"".join(protocol.data_to_send()))
    protocol.receive_data(client.hears())
    protocol.events_received()
    assert [extension.name for extension in protocol.extensions] == ["permessage-deflate"]
    return server, client, server.backend.opened[0], protocol


@scenario
async def test_messages_are_deflated_both_ways() -> None:
    _, client, socket, protocol = deflating()
    protocol.send_text(b"x" * 900)
    protocol.send_binary(b"a", fin=False)
    protocol.send_ping(b"p")
    protocol.send_continuation(b"b", fin=True)
    sent = b"".join(protocol.data_to_send())
    assert len(sent) < 100
    for place in range(len(sent)):
        client.says(sent[place : place + 1])
    assert socket.frames == ["x" * 900, b"ab"]
    socket.client.frame("y" * 900)
    socket.client.frame(b"\xff")
    heard = client.hears()
    assert len(heard) < 100
    protocol.receive_data(heard)
    events: list[Any] = protocol.events_received()
    assert [(each.opcode, bytes(each.data)) for each in events] == [
        (Opcode.PONG, b"p"),
        (Opcode.TEXT, b"y" * 900),
        (Opcode.BINARY, b"\xff"),
    ]


@scenario
async def test_a_deflated_message_is_as_large_as_it_is_inflated() -> None:
    _, client, socket, protocol = deflating()
    protocol.send_binary(bytes(1001))
    client.says(b"".join(protocol.data_to_send()))
    assert closed(client.hears())[0] == 1009
    assert socket.frames == []


@scenario
async def test_deflated_fragments_are_as_large_as_all_of_them() -> None:
    _, client, socket, protocol = deflating()
    protocol.send_binary(bytes(600), fin=False)
    protocol.send_continuation(bytes(600), fin=True)
    client.says(b"".join(protocol.data_to_send()))
    assert closed(client.hears())[0] == 1009
    assert socket.frames == []


@scenario
async def test_deflated_messages_have_as_few_fragments() -> None:
    _, client, _, protocol = deflating()
    protocol.send_text(b"", fin=False)
    protocol.send_continuation(b"", fin=False)
    protocol.send_continuation(b"", fin=False)
    client.says(b"".join(protocol.data_to_send()))
    assert closed(client.hears()) == (1009, "over 3 fragments")


@scenario
async def test_nobody_deflates_unless_it_is_turned_on() -> None:
    server = Server(Backend(), ws_per_message_deflate=False)
    client = server.connect()
    client.says(HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"))
    assert b"permessage-deflate" not in client.hears()
    client.says(masked(TEXT | 0x40, b"x"))
    assert closed(client.hears())[0] == 1002


def test_a_client_s_frames_are_those_of_websockets() -> None:
    """What these tests send is what a client sends."""
    for payload in (b"", b"x" * 126, b"x" * 70_000):
        frame = ClientFrame(Opcode.TEXT, payload)
        assert len(frame.serialize(mask=True)) == len(masked(TEXT, payload))
    with pytest.raises(ProtocolError):
        ClientFrame(Opcode.PING, b"x" * 126).check()
