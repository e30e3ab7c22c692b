"""What an ASGI application says, as it is checked."""

from http import HTTPStatus
from typing import Any

import pytest

from asgictl.wire.asgi import accept_of, bytes_of, headers_of, left_of, plain_message, status_of
from asgictl.wire.messages import Accept
from tests.plain import TEXTS, Bytes, Liar, Number, Safe


@pytest.mark.parametrize("value", [b"ab", Bytes(b"ab"), bytearray(b"ab"), memoryview(b"ab"), memoryview(b"axbx")[::2]])
def test_any_buffer_is_bytes(value: Any) -> None:
    assert (bytes_of(value), type(bytes_of(value))) == (b"ab", bytes)


@pytest.mark.parametrize("value", ["ab", 5, None, [97]])
def test_what_is_no_buffer_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        bytes_of(value)


def test_headers_are_plain_bytes_with_names_in_lower_case() -> None:
    headers, length = headers_of(200, [(Bytes(b"X-A"), bytearray(b"1"))])
    assert (headers, length) == ([(b"x-a", b"1")], None)
    assert {type(each) for header in headers for each in header} == {bytes}


@pytest.mark.parametrize("make", [list, tuple, iter, dict, lambda pairs: (each for each in pairs)])
def test_headers_are_any_iterable_of_pairs(make: Any) -> None:
    pairs = [(b"x-a", b"1"), (b"x-b", b"a\tb")]
    made = make(pairs)
    assert headers_of(200, made.items() if make is dict else made) == (pairs, None)


BAD_VALUES = [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b"a\x01b", b"a\x1fb", b"a\x7fb"]
BAD_HEADERS: list[Any] = [
    *((b"x-a", value) for value in BAD_VALUES),
    *((name, b"a") for name in (b"", b"x a", b"x:a", b"x-\xe9", b"x\n")),
    *(("x-a", b"a"), (b"x-a", "a"), (b"x-a", 5), (b"x-a",), b"x-a", None),
    *((b"content-length", value) for value in (b"", b"a", b"-5", b"+5", b" 5", b"5_0", b"5, 5", b"9" * 5000)),
]


@pytest.mark.parametrize("header", BAD_HEADERS)
@pytest.mark.parametrize("status", [101, 200, 304])
def test_a_header_that_cannot_be_sent_is_an_error(status: int, header: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        headers_of(status, [header])


def test_a_value_is_any_bytes_but_controls() -> None:
    value = bytes(each for each in range(256) if each == 9 or (each >= 32 and each != 127))
    assert headers_of(200, [(b"x-a", value)])[0] == [(b"x-a", value)]


def test_headers_of_wsgi_are_text_that_latin_1_can_carry() -> None:
    """PEP 3333, "Unicode Issues"."""
    headers = [(Safe("X-A"), "\xe9"), ("x-b", Liar("hello")), ("Content-Length", "5")]
    checked, length = headers_of(200, headers, is_text=True)
    assert (checked, length) == ([(b"x-a", b"\xe9"), (b"x-b", b"hello"), (b"content-length", b"5")], 5)
    assert {type(each) for header in checked for each in header} == {bytes}


@pytest.mark.parametrize(
    "header", [(b"x-a", "b"), ("x-a", b"b"), ("x-a", "\u20ac"), ("x-\u20ac", "b"), ("x a", "b"), ("x-a", "a\x01b")]
)
def test_a_header_of_wsgi_that_cannot_be_sent_is_an_error(header: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        headers_of(200, [header], is_text=True)


LENGTH = (b"content-length", b"5")
CLOSE = (b"connection", b"close")
KEPT = (b"x-a", b"1")


@pytest.mark.parametrize(
    ("status", "headers", "sent", "length"),
    [
        (200, [LENGTH, KEPT], [LENGTH, KEPT], 5),
        (200, [LENGTH, (b"Content-Length", b"5")], [LENGTH], 5),
        (101, [LENGTH, KEPT], [KEPT], 5),
        (204, [LENGTH, KEPT], [KEPT], 5),
        (304, [KEPT, LENGTH], [KEPT], 5),
        (200, [(b"Transfer-Encoding", b"chunked"), KEPT], [KEPT], None),
        (200, [(b"Transfer-Encoding", b"gzip, chunked"), LENGTH], [LENGTH], 5),
        (200, [(b"keep-alive", b"timeout=5"), (b"TE", b"trailers"), (b"upgrade", b"h2c"), KEPT], [KEPT], None),
        (200, [(b"proxy-connection", b"close"), KEPT], [KEPT], None),
        (200, [(b"connection", b"keep-alive, X-B"), KEPT, (b"x-b", b"2")], [KEPT], None),
        (200, [(b"connection", b"x-b , Close"), (b"x-b", b"2"), KEPT], [KEPT, CLOSE], None),
        (101, [CLOSE, (b"upgrade", b"h2c"), KEPT], [KEPT], None),
    ],
)
def test_what_is_of_the_connection_is_not_sent(status: int, headers: Any, sent: Any, length: int | None) -> None:
    """RFC 9110, sections 7.6.1 and 8.6; an application may ask its server to close (RFC 9112, section 9.6)."""
    assert headers_of(status, headers) == (sent, length)


def test_two_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        headers_of(200, [LENGTH, (b"content-length", b"6")])


@pytest.mark.parametrize("status", [200, 204, 599, 600, 999, HTTPStatus.OK, Number(404)])
def test_a_status_is_that_of_a_final_response(status: int) -> None:
    assert (status_of(status), type(status_of(status))) == (int(status), int)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, "200", 200.0, None, True])
def test_what_is_no_status_of_a_final_response_is_an_error(status: Any) -> None:
    with pytest.raises(ValueError, match="not a status"):
        status_of(status)


@pytest.mark.parametrize("text", [*TEXTS, None, ""])
def test_a_handshake_is_accepted_with_plain_values(text: str | None) -> None:
    accept = accept_of(text, iter([(Bytes(b"X-A"), Bytes(b"1"))]))
    assert accept == Accept("hello" if text else text, [(b"x-a", b"1")])
    assert type(accept.subprotocol) in {str, type(None)}


@pytest.mark.parametrize("subprotocol", ["a\r\nx: y", "a b", "a,b", "\u20ac", "\udc80", b"chat", 5])
def test_a_subprotocol_that_no_handshake_can_name_is_an_error(subprotocol: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        accept_of(subprotocol, None)


@pytest.mark.parametrize("text", TEXTS)
def test_a_message_has_nothing_of_a_subclass(text: str) -> None:
    message = plain_message({"type": "websocket.close", "code": 1000, "reason": text})
    assert (message["reason"], type(message["reason"])) == ("hello", str)
    assert type(plain_message({"type": "websocket.send", "text": text})["text"]) is str
    frame = plain_message({"type": "websocket.send", "text": None, "bytes": Bytes(b"b")})
    assert (frame["bytes"], type(frame["bytes"])) == (b"b", bytes)


@pytest.mark.parametrize("frame", [{"text": "t"}, {"bytes": b"b"}, {"text": None, "bytes": b"b"}])
def test_a_frame_that_is_plain_is_passed_as_it_is(frame: dict[str, Any]) -> None:
    message = {"type": "websocket.send", **frame}
    assert plain_message(message) is message


@pytest.mark.parametrize(
    ("left", "size", "more", "after"), [(None, 9, True, None), (5, 2, True, 3), (5, 5, True, 0), (5, 5, False, 0)]
)
def test_a_body_keeps_to_the_length_that_its_headers_have(left: int, size: int, more: bool, after: int | None) -> None:
    assert left_of(left, size, more=more) == after


@pytest.mark.parametrize(("size", "more"), [(6, True), (6, False), (4, False)])
def test_a_body_of_another_length_is_an_error(size: int, more: bool) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        left_of(5, size, more=more)
