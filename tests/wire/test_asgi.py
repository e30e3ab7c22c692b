"""What an ASGI application says, as it is checked."""

from typing import Any

import pytest

from asgictl.wire.asgi import bytes_of, headers_of, plain_message
from tests.plain import TEXTS, Bytes


@pytest.mark.parametrize("value", [b"ab", Bytes(b"ab"), bytearray(b"ab"), memoryview(b"ab"), memoryview(b"axbx")[::2]])
def test_any_buffer_is_bytes(value: Any) -> None:
    assert (bytes_of(value), type(bytes_of(value))) == (b"ab", bytes)


@pytest.mark.parametrize("value", ["ab", 5, None, [97]])
def test_what_is_no_buffer_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        bytes_of(value)


def test_headers_are_plain_bytes_with_names_in_lower_case() -> None:
    headers = headers_of({"type": "t", "headers": [(Bytes(b"X-A"), bytearray(b"1"))]})
    assert headers == [(b"x-a", b"1")]
    assert {type(each) for header in headers for each in header} == {bytes}


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
