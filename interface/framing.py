"""HTTP/1.1 responses and WebSocket frames as bytes, without I/O (RFC 9112, section 6; RFC 6455, section 5.2)."""

import re
from functools import lru_cache
from http import HTTPStatus

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # an interpreter for which there is no wheel
    from websockets.utils import apply_mask as apply_mask

from asgictl.wire.asgi import BODILESS, left_of, tokens
from asgictl.wire.messages import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
# A client takes a status that it does not know for x00 (RFC 9110, section 15).
STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"")) for status in range(100, 1000)}
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A  # opcodes of whole frames, with FIN
CONTROL = 0x08  # the bit of their first byte that control frames have
MASKED, LENGTH = 0x80, 0x7F  # bits of the second
CONTROL_BYTES = 125  # that a control frame holds at most (RFC 6455, section 5.5)


# RFC 9110, section 7.2; RFC 3986, section 3.2.2.
_match_host = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(:[0-9]*)?").fullmatch


class ResponseWriter:
    """One response's framing: encode its head, then its parts.

    Args:
        is_head: the request's method is HEAD, so that no body follows.
        is_old: the client speaks HTTP/1.0, which has no chunks: a body without Content-Length ends with the connection.
        closes: whether the connection is to be closed afterwards.

    closes: as decided once the head is encoded. is_delimited: whether a client can tell a whole body from a part of it.
    """

    is_delimited: bool = True
    _is_chunked = False
    _left: int | None = None  # bytes of the body, as Content-Length has it

    def __init__(self, is_head: bool, is_old: bool, closes: bool) -> None:
        self._is_bodiless = is_head
        self._is_old = is_old
        self.closes: bool = closes

    def head(self, status: int, headers: Headers, defaults: "Defaults", body: bytes, more: bool) -> bytes:
        """Encode the head and the first part of the body. Raises ValueError when the body is not as long as it says."""
        out = [STATUS_LINES[status]]
        written, length, heeded = defaults.encoded, None, defaults.heeded
        for name, value in headers:
            if name in heeded:
                if name == b"content-length":
                    length = int(value)
                elif name != b"connection":
                    written = defaults.without({each for each, _ in headers})
                elif status != 101:
                    self.closes = self.closes or b"close" in value.lower()
                    continue
            out += (name, b": ", value, b"\r\n")
        out.append(written)
        if self._is_bodiless or status in BODILESS:
            self._is_bodiless = True
        elif length is not None:
            self._left = length
        elif self._is_old:
            self.closes, self.is_delimited = True, False
        else:
            self._is_chunked = True
            out.append(b"transfer-encoding: chunked\r\n")
        out.append(b"connection: close\r\n\r\n" if self.closes else b"\r\n")
        out.append(self.part(body, more))
        return b"".join(out)

    def part(self, body: bytes, more: bool) -> bytes:
        """Encode the next part of the body. Raises ValueError when it is not as long as its head says."""
        if self._is_bodiless:
            return b""
        if self._is_chunked:
            encoded = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return encoded if more else encoded + LAST_CHUNK
        self._left = left_of(self._left, len(body), more=more)
        return body


class Defaults:
    """Headers that the server adds to each response which has none of that name: Date, and what its user configured."""

    def __init__(self, headers: Headers) -> None:
        """heeded: names of those, and of headers that say how a response is framed."""
        self.headers = headers
        self.heeded: set[bytes] = {b"content-length", b"connection"} | {name.lower() for name, _ in headers}
        self.encoded: bytes = self.without(set())

    def without(self, names: set[bytes]) -> bytes:
        """Encode those that have other names."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0].lower() not in names)


@lru_cache(256)
def is_host(value: bytes) -> bool:
    """Whether the value of a Host header is a host, with or without a port."""
    return _match_host(value) is not None


def is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Whether a request with an offer to upgrade, with names in lower case, is a WebSocket's (RFC 6455, section 4.1).

    One with a body is none: whoever does not take it for a handshake would find a request in its body.
    """
    names = {name for name, _ in headers}
    return (
        (method, version) == (b"GET", "1.1")
        and b"upgrade" in tokens(headers, b"connection")
        and b"websocket" in tokens(headers, b"upgrade")
        and b"sec-websocket-key" in names
        and b"transfer-encoding" not in names
        and tokens(headers, b"content-length") <= {b"0"}
    )


def frame(opcode: int, payload: bytes) -> bytes:
    """Encode a server's frame, which is not masked."""
    size = len(payload)
    if size <= CONTROL_BYTES:
        return bytes((opcode, size)) + payload
    if size < 1 << 16:
        return bytes((opcode, 126, size >> 8, size & 0xFF)) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


@lru_cache(1)
def message(content: str | bytes) -> bytes:
    """Encode a message as one frame. Members of a group get the same object in turn, so it is encoded once for all."""
    return frame(TEXT, content.encode()) if isinstance(content, str) else frame(BINARY, content)


def header_of(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where a client's frame has its payload, and of how many bytes; None when its header is not whole yet.

    A frame that is not masked has its payload 4 bytes earlier; a server never reads it.
    """
    if len(data) - at < 2:
        return None
    size = data[at + 1] & LENGTH
    extended = 2 if size == 126 else 8 if size == 127 else 0
    begin = at + 2 + extended + (4 if data[at + 1] & MASKED else 0)
    if len(data) < begin:
        return None
    return begin, int.from_bytes(data[at + 2 : at + 2 + extended]) if extended else size
