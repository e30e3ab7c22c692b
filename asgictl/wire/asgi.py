"""The messages of ASGI, and what an application may say in them; a mistake is an exception where it is made."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from asgictl.wire.messages import Accept, Close, Headers, plain

ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110, section 5.6.2
_has_control = re.compile(rb"[\0-\x08\n-\x1f\x7f]").search  # section 5.5
# Of the connection, which is the server's (RFC 9110, section 7.6.1); and so is how a body is framed on it.
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"})
DENIAL_BYTES = 1 << 20  # of the body with which a handshake is refused
BODILESS = frozenset({101, 204, 304})  # RFC 9112, section 6.3; of 1xx an application sends 101 alone


def bytes_of(value: Any) -> bytes:
    """Return the bytes of any buffer; of a subclass's too, whatever its own methods say. Raises TypeError."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def plain_message(message: ASGIMessage) -> ASGIMessage:
    """Return a WebSocket's message as its server has to get it, with nothing of a subclass. Raises TypeError."""
    if type(message.get("text")) is str or type(message.get("bytes")) is bytes:
        return message  # as nearly all are
    plain_values = {name: plain(value) for name, value in message.items()}
    if plain_values.get("bytes") is not None:
        plain_values["bytes"] = bytes_of(plain_values["bytes"])
    return plain_values


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """Return the members of a list in the values of a header, in lower case (RFC 9110, section 5.6.1)."""
    return {token.strip().lower() for key, value in headers if key == name for token in value.split(b",")}


def headers_of(status: int, headers: Iterable[Any], *, is_text: bool = False) -> tuple[Headers, int | None]:
    """Check a response's headers. Return those that are sent, as plain bytes in lower case, and their Content-Length.

    Args:
        status: of the response. Where it lets no body follow, Content-Length is not sent.
        headers: pairs of bytes, in any iterable; with is_text pairs of str, as in WSGI. Those of the connection are not
            sent, but for `Connection: close`, which asks the server to close it (RFC 9112, section 9.6).

    Raises TypeError or ValueError for what cannot be sent.
    """
    kept: Headers = []
    length: int | None = None
    is_hop_by_hop = False
    for name, value in headers:
        if is_text:
            name, value = _name_of_text(name), str.encode(value, "latin-1")
        else:
            name, value = _name(bytes_of(name)), bytes_of(value)
        if _has_control(value):
            raise ValueError(f"{name!r}: {value!r} is not a valid header value")
        if name == b"content-length":
            known, length = length, int(value) if value.isdigit() else -1
            if length < 0 or known not in (None, length):
                raise ValueError(f"{value!r} is not a valid Content-Length, or not the only one")
            if known is not None or status in BODILESS:
                continue
        elif name in HOP_BY_HOP:
            is_hop_by_hop = True
        kept.append((name, value))
    return _end_to_end(status, kept) if is_hop_by_hop else kept, length


def left_of(left: int | None, size: int, *, more: bool) -> int | None:
    """Return how many bytes of a body its headers still promise once `size` more have come; None: they say nothing.

    Raises ValueError when the body is longer, or ends too early.
    """
    if left is not None:
        left -= size
        if left < 0 or (left and not more):
            raise ValueError(f"the body is longer or shorter than its Content-Length, by {abs(left)} bytes")
    return left


@lru_cache(maxsize=256)
def _name(name: bytes) -> bytes:
    if not _is_token(name):
        raise ValueError(f"{name!r} is not a valid header name")
    return name.lower()


@lru_cache(maxsize=256)
def _name_of_text(name: str) -> bytes:
    return _name(str.encode(name, "latin-1"))


def _end_to_end(status: int, headers: Headers) -> Headers:
    options = tokens(headers, b"connection")
    closes = [(b"connection", b"close")] if b"close" in options and status != 101 else []
    return [header for header in headers if header[0] not in HOP_BY_HOP | options] + closes


def status_of(status: Any, most: int = 999) -> int:
    """Return the status of a response; raises ValueError for what is none, or not that of a final one."""
    if not isinstance(status, int) or not 200 <= status <= most:
        raise ValueError(f"{status!r:.60} is not a status from 200 to {most}")
    return int.__int__(status)


def accept_of(subprotocol: str | None, headers: Iterable[Any] | None) -> Accept:
    """Return the answer that accepts a handshake; raises TypeError or ValueError for what cannot be sent in it."""
    if not isinstance(subprotocol, str | None):
        raise TypeError(f"a subprotocol must be a str, not {type(subprotocol).__name__}")
    subprotocol = plain(subprotocol)
    if subprotocol and not _is_token(subprotocol.encode()):
        raise ValueError(f"{subprotocol!r:.60} is not a valid subprotocol")  # RFC 6455, section 4.2.2
    return Accept(subprotocol, headers_of(101, headers or ())[0])


def denial_of(body: bytes) -> bytes:
    """Return as much of the body of a refusal as has come. Raises ValueError when it is too large."""
    if len(body) > DENIAL_BYTES:
        raise ValueError(f"a denial response's body has at most {DENIAL_BYTES} bytes")
    return body


def close_of(code: Any, reason: Any) -> Close:
    """Return the close of a socket; raises what websockets does, or TypeError, for what cannot be sent in its frame."""
    reason = plain(reason) or ""
    Frame(Opcode.CLOSE, CloseFrame(code, reason).serialize()).check()
    return Close(code, reason)
