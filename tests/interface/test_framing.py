"""Responses and frames as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgictl.interface.framing import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Defaults,
    ResponseWriter,
    frame,
    header_of,
    is_handshake,
    message,
)
from asgictl.wire.messages import Headers
from tests.interface.edges import masked

NONE = Defaults([])


def written(
    headers: Headers, *parts: bytes, status: int = 200, is_head: bool = False, is_old: bool = False
) -> tuple[bytes, bytes, bool, bool]:
    """Return head and body, and whether the connection closes and the body is delimited."""
    writer = ResponseWriter(is_head, is_old, closes=False)
    data = writer.head(status, headers, NONE, parts[0], more=len(parts) > 1)
    for number, part in enumerate(parts[1:], 2):
        data += writer.part(part, more=number < len(parts))
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body, writer.closes, writer.is_delimited


OK = b"HTTP/1.1 200 OK"


def test_a_body_without_a_length_is_one_chunk() -> None:
    head = OK + b"\r\na: b\r\ntransfer-encoding: chunked"
    assert written([(b"a", b"b")], b"hello") == (head, b"5\r\nhello\r\n0\r\n\r\n", False, True)


def test_a_body_in_parts_has_chunks_and_no_empty_one_before_the_last() -> None:
    head, body, closes, is_delimited = written([], b"", b"he", b"", b"x" * 20, b"")
    assert head == OK + b"\r\ntransfer-encoding: chunked"
    assert body == b"2\r\nhe\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"
    assert (closes, is_delimited) == (False, True)


def test_a_body_in_parts_with_a_length_has_no_chunks() -> None:
    length = (b"content-length", b"5")
    assert written([length], b"he", b"llo") == (OK + b"\r\ncontent-length: 5", b"hello", False, True)


def test_http_1_0_hears_of_a_body_s_end_by_that_of_the_connection() -> None:
    assert written([], b"he", b"llo", is_old=True) == (OK + b"\r\nconnection: close", b"hello", True, False)
    assert written([], b"hello", is_old=True) == (OK + b"\r\nconnection: close", b"hello", True, False)
    length = (b"content-length", b"5")
    assert written([length], b"hello", is_old=True) == (OK + b"\r\ncontent-length: 5", b"hello", False, True)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_let_no_body_follow(status: int) -> None:
    head, body, _, _ = written([], b"he", b"llo", status=status)
    assert (head.count(b"\r\n"), body) == (0, b"")


def test_a_head_request_s_response_has_its_headers_alone() -> None:
    assert written([(b"content-length", b"9")], b"he", b"llo", is_head=True)[:2] == (OK + b"\r\ncontent-length: 9", b"")


@pytest.mark.parametrize("parts", [(b"sho",), (b"longer",), (b"he", b"l"), (b"he", b"llos"), (b"hello", b"s", b"")])
def test_a_body_is_as_long_as_it_says(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        written([(b"content-length", b"5")], *parts)


def test_close_is_asked_for_by_either_side_and_told_once() -> None:
    head, _, closes, _ = written([(b"connection", b"Close")], b"")
    assert (head.count(b"connection: close"), head.lower().count(b"connection"), closes) == (1, 1, True)
    writer = ResponseWriter(is_head=False, is_old=False, closes=True)
    assert writer.head(200, [], NONE, b"", more=False).count(b"connection: close") == 1


def test_the_head_of_an_upgrade_keeps_its_connection_header() -> None:
    assert written([(b"connection", b"Upgrade")], b"", status=101)[:3] == (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade",
        b"",
        False,
    )


def test_default_headers_stand_where_the_response_has_none_of_their_name() -> None:
    defaults = Defaults([(b"Date", b"today"), (b"x-a", b"1"), (b"x-a", b"2")])
    assert defaults.encoded == b"Date: today\r\nx-a: 1\r\nx-a: 2\r\n"
    writer = ResponseWriter(is_head=False, is_old=False, closes=False)
    head = writer.head(204, [(b"date", b"own")], defaults, b"", more=False)
    assert head == b"HTTP/1.1 204 No Content\r\ndate: own\r\nx-a: 1\r\nx-a: 2\r\n\r\n"
    writer = ResponseWriter(is_head=False, is_old=False, closes=False)
    head = writer.head(204, [(b"x-a", b"own"), (b"date", b"own")], defaults, b"", more=False)
    assert head == b"HTTP/1.1 204 No Content\r\nx-a: own\r\ndate: own\r\n\r\n"


@pytest.mark.parametrize(("status", "line"), [(404, b"404 Not Found"), (600, b"600 "), (999, b"999 ")])
def test_any_status_has_a_line(status: int, line: bytes) -> None:
    assert written([], b"", status=status)[0].startswith(b"HTTP/1.1 " + line + b"\r\n")


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_chunks_hold_what_was_written(parts: list[bytes]) -> None:
    _, body, _, _ = written([], *parts, b"")
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    assert found == b"".join(parts)


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


def test_a_frame_that_many_get_is_encoded_once() -> None:
    content = "x" * 10
    assert message(content) is message(content)
    assert message("\u20ac") == b"\x81\x03\xe2\x82\xac"
    assert message(b"x") == b"\x82\x01x"
    assert message("x") == b"\x81\x01x"


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING])
@pytest.mark.parametrize(
    ("size", "header"),
    [(0, b"\0"), (125, b"\x7d"), (126, b"\x7e\0\x7e"), (65535, b"\x7e\xff\xff"), (65536, b"\x7f\0\0\0\0\0\1\0\0")],
)
def test_a_frame_says_its_size_in_as_few_bytes_as_it_can(opcode: int, size: int, header: bytes) -> None:
    """RFC 6455, section 5.2."""
    assert frame(opcode, b"x" * size) == bytes((opcode,)) + header + b"x" * size


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_client_s_frame_is_found_once_its_header_is_whole(size: int) -> None:
    data = b"behind" + masked(TEXT, bytes(size))
    begin = len(data) - size
    for end in range(6, begin):
        assert header_of(data[:end], 6) is None
    assert header_of(data[:begin], 6) == header_of(data, 6) == (begin, size)


def test_a_frame_that_is_not_masked_has_its_payload_earlier() -> None:
    assert header_of(frame(TEXT, b"abc"), 0) == (2, 3)
