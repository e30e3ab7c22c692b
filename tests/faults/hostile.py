"""Hostile inputs as raw bytes, and what is right for each: one table of HTTP, one of WebSockets.

A request for /forbidden, which nginx refuses, is hidden in many: it must never run. What a server may do is narrower
than what RFC 9112 allows it: what is not understood is refused, and the connection closed.
"""

from dataclasses import dataclass, field

HOST = b"Host: a\r\n"
MARKER = b"GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIELDS = 100  # of a request's headers, at most
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(MARKER), MARKER)


@dataclass(frozen=True, slots=True)
class Row:
    """data: what is sent. statuses: of its answers. ran: what the application notes,
    with the Host where it is not a. is_kept: for the next request."""

    data: bytes
    statuses: tuple[int, ...] = (400,)
    ran: tuple[str, ...] = ()
    is_kept: bool = False


def served(data: bytes, *ran: str, is_kept: bool = True) -> Row:
    """Make a row of requests that run."""
    return Row(data, (200,) * len(ran), ran, is_kept)


def get(*lines: bytes, target: bytes = b"/x", version: bytes = b"HTTP/1.1", host: bytes = HOST) -> bytes:
    """Return a GET with these header lines."""
    return b"GET %b %b\r\n%b%b\r\n" % (target, version, host, b"".join(lines))


def post(framing: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a POST with lines that frame its body."""
    return b"POST /x %b\r\n%b%b\r\n%b" % (version, HOST, framing, body)


def length(value: bytes, body: bytes = MARKER) -> bytes:
    """Return a POST with a Content-Length."""
    return post(b"Content-Length: %b\r\n" % value, body)


def coding(value: bytes, body: bytes = CHUNK) -> bytes:
    """Return a POST with a Transfer-Encoding."""
    return post(b"Transfer-Encoding: %b\r\n" % value, body)


SIZE = b"%d" % len(MARKER)
FRAMING = {
    "CL and TE": Row(post(b"Content-Length: 4\r\n" + CHUNKED, CHUNK)),
    "TE and CL": Row(post(CHUNKED + b"Content-Length: 4\r\n", CHUNK)),
    "TE and CL of 0": Row(post(CHUNKED + b"Content-Length: 0\r\n", CHUNK)),
    "CL and another TE": Row(post(b"Content-Length: 4\r\nTransfer-Encoding: identity\r\n", MARKER)),
    "two CLs": Row(post(b"Content-Length: 0\r\nContent-Length: %b\r\n" % SIZE, MARKER)),
    "two equal CLs": Row(post(b"Content-Length: %b\r\n" % SIZE * 2, MARKER)),
    "a list of CLs": Row(length(b"0, " + SIZE)),
    "CL with a sign": Row(length(b"+" + SIZE)),
    "CL below 0": Row(length(b"-1")),
    "CL in hex": Row(length(b"0x" + SIZE)),
    "CL with a space": Row(length(b"1 0")),
    "CL with an underscore": Row(length(b"1_0")),
    "CL of other digits": Row(length("٣".encode())),
    "CL of nothing": Row(length(b"")),
    "CL past 64 bits": Row(length(b"18446744073709551617")),
    "CL before a space": Row(post(b"Content-Length : %b\r\n" % SIZE, MARKER)),
    "CL in spaces": served(length(b" \t" + SIZE + b"\t "), f"POST /x {len(MARKER)}"),
    "CL with zeros": served(length(b"00" + SIZE), f"POST /x {len(MARKER)}"),
    "CL as an option of Connection": served(
        post(b"Connection: Content-Length\r\nContent-Length: %b\r\n" % SIZE, MARKER), f"POST /x {len(MARKER)}"
    ),
    "CL of a GET": served(get(b"Content-Length: %b\r\n" % SIZE) + MARKER, f"GET /x {len(MARKER)}"),
    "TE": served(coding(b"chunked"), f"POST /x {len(MARKER)}"),
    "TE in capitals": served(coding(b"cHUnKeD"), f"POST /x {len(MARKER)}"),
    "TE twice": Row(post(CHUNKED * 2, CHUNK)),
    "TE listed twice": Row(coding(b"chunked, chunked")),
    "TE not last": Row(coding(b"chunked, identity")),
    "TE behind another": Row(coding(b"gzip, chunked"), (501,)),
    "TE in two lines": Row(post(b"Transfer-Encoding: gzip\r\n" + CHUNKED, CHUNK), (501,)),
    "TE of another": Row(coding(b"gzip"), (501,)),
    "TE of a GET": Row(get(b"Transfer-Encoding: gzip\r\n") + MARKER, (501,)),
    "TE of no name": Row(coding(b"xchunked"), (501,)),
    "TE of nothing": Row(coding(b"")),
    "TE of a comma": Row(coding(b",chunked"), (501,)),
    "TE in quotes": Row(coding(b'"chunked"'), (501,)),
    "TE with a parameter": Row(coding(b"chunked;a=b"), (501,)),
    "TE with VT": Row(coding(b"\x0bchunked")),
    "TE with NUL": Row(coding(b"chunked\0")),
    "TE before a space": Row(post(b"Transfer-Encoding : chunked\r\n", CHUNK)),
    "TE on the next line": Row(post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNK)),
    "TE of HTTP/1.0": served(post(CHUNKED, CHUNK, b"HTTP/1.0"), f"POST /x {len(MARKER)}", is_kept=False),
}


def chunks(body: bytes) -> Row:
    """Make a row of a body whose chunks are bad."""
    return Row(post(CHUNKED, body))


CHUNKS = {
    "an extension": served(post(CHUNKED, b'1;a=b;c="d"\r\na\r\n0;e\r\n\r\n'), "POST /x 1"),
    "trailers": served(post(CHUNKED, b"1\r\na\r\n0\r\nX: b\r\nHost: c\r\n\r\n"), "POST /x 1"),
    "many zeros": served(post(CHUNKED, b"%b1\r\na\r\n0\r\n\r\n" % (b"0" * 40)), "POST /x 1"),
    "an extension with a bare LF": chunks(b"1;\na\r\n0\r\n\r\n" + MARKER),
    "an extension with a line's end in quotes": chunks(b'1;a="\r\n"\r\na\r\n0\r\n\r\n' + MARKER),
    "extensions without end": Row(post(CHUNKED, b"1;" + b"a" * 140_000), (431,)),
    "a bare LF behind the size": chunks(b"1\na\r\n0\r\n\r\n" + MARKER),
    "a bare LF behind the data": chunks(b"1\r\na\n0\r\n\r\n" + MARKER),
    "a bare CR behind the data": chunks(b"1\r\na\r0\r\n\r\n" + MARKER),
    "a size with 0x": chunks(b"0x1\r\na\r\n0\r\n\r\n" + MARKER),
    "a size with a sign": chunks(b"+1\r\na\r\n0\r\n\r\n" + MARKER),
    "a size below 0": chunks(b"-1\r\na\r\n0\r\n\r\n" + MARKER),
    "a size behind a space": chunks(b" 1\r\na\r\n0\r\n\r\n" + MARKER),
    "a size before a space": chunks(b"1 \r\na\r\n0\r\n\r\n" + MARKER),
    "no size": chunks(b"\r\na\r\n0\r\n\r\n" + MARKER),
    "no hex": chunks(b"g\r\na\r\n0\r\n\r\n" + MARKER),
    "a size past 64 bits": chunks(b"10000000000000001\r\na\r\n0\r\n\r\n" + MARKER),
    "more than the size": chunks(b"1\r\nab\r\n0\r\n\r\n" + MARKER),
    "less than the size": chunks(b"2\r\na\r\n0\r\n\r\n" + MARKER),
    "CL in a trailer": chunks(b"0\r\nContent-Length: %b\r\n\r\n" % SIZE + MARKER),
    "TE in a trailer": chunks(b"0\r\n" + CHUNKED + b"\r\n" + MARKER),
    "a bare LF in a trailer": chunks(b"0\r\nX: a\n\n" + MARKER),
    "a trailer with a space": chunks(b"0\r\nX : a\r\n\r\n" + MARKER),
    "trailers without end": Row(post(CHUNKED, b"0\r\n" + b"X: aaaaaaaaaaaa\r\n" * 9_000), (431,)),
}
LINES = {
    "bare LFs": Row(b"GET /x HTTP/1.1\nHost: a\n\n" + MARKER),
    "a bare LF behind a field": Row(get(b"X: a\n") + MARKER),
    "a bare LF at the end": Row(b"GET /x HTTP/1.1\r\nHost: a\r\n\n" + MARKER),
    "a bare CR in a value": Row(get(b"X: a\rb\r\n") + MARKER),
    "a bare CR before a field": Row(get(b"X: a\rContent-Length: %b\r\n" % SIZE) + MARKER),
    "a folded line": Row(get(b"X: a\r\n b\r\n") + MARKER),
    "a folded CL": Row(post(b"Content-Length:\r\n %b\r\n" % SIZE, MARKER)),
    "a first line that is folded": Row(get(host=b" X: a\r\n" + HOST) + MARKER),
    "NUL in a value": Row(get(b"X: a\0b\r\n") + MARKER),
    "a control in a value": Row(get(b"X: a\x01b\r\n") + MARKER),
    "DEL in a value": Row(get(b"X: a\x7fb\r\n") + MARKER),
    "8 bits in a value": served(get(b"X: a\xffb\r\n"), "GET /x 0"),
    "NUL in a name": Row(get(b"X\0: a\r\n") + MARKER),
    "8 bits in a name": Row(get(b"X\xff: a\r\n") + MARKER),
    "a name with a space": Row(get(b"X Y: a\r\n") + MARKER),
    "a name before a space": Row(get(b"X : a\r\n") + MARKER),
    "a name with brackets": Row(get(b"X(y): a\r\n") + MARKER),
    "no name": Row(get(b": a\r\n") + MARKER),
    "no colon": Row(get(b"X\r\n") + MARKER),
    "empty lines before": served(b"\r\n\r\n" + get(), "GET /x 0"),
    "a space before": Row(b" " + get() + MARKER),
    "spaces between": served(get(target=b" /x "), "GET /x 0"),
    "a tab between": Row(b"GET\t/x\tHTTP/1.1\r\n" + HOST + b"\r\n" + MARKER),
    "TLS": Row(bytes.fromhex("1603010200010001fc0303") + bytes(40)),
    "NULs": Row(bytes(100)),
    "an unknown method": Row(b"FOO /x HTTP/1.1\r\n" + HOST + b"\r\n" + MARKER),
    "a method in lower case": Row(b"get /x HTTP/1.1\r\n" + HOST + b"\r\n" + MARKER),
    "no HTTP": Row(get(version=b"HTTPS/1.1") + MARKER),
    "HTTP/0.9": Row(b"GET /x\r\n\r\n", (505,)),
    "HTTP/0.9, as it says": Row(get(version=b"HTTP/0.9") + MARKER, (505,)),
    "HTTP/1.0": served(get(version=b"HTTP/1.0") + MARKER, "GET /x 0", is_kept=False),
    "HTTP/1.2": Row(get(version=b"HTTP/1.2") + MARKER),
    "HTTP/2.0": Row(get(version=b"HTTP/2.0") + MARKER, (505,)),
    "HTTP/2's preface": Row(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/9.9": Row(get(version=b"HTTP/9.9") + MARKER),
    "HTTP/01.1": Row(get(version=b"HTTP/01.1") + MARKER),
    "http/1.1": Row(get(version=b"http/1.1") + MARKER),
    "a version with more": Row(get(version=b"HTTP/1.1 a") + MARKER),
    "Connection: close": served(get(b"Connection: close\r\n") + MARKER, "GET /x 0", is_kept=False),
}


def host(value: bytes) -> Row:
    """Make a row of a Host that is none."""
    return Row(get(host=b"Host: %b\r\n" % value) + MARKER)


TARGETS = {
    "no Host": Row(get(host=b"") + MARKER),
    "no Host in HTTP/1.0": served(get(host=b"", version=b"HTTP/1.0"), "GET /x 0", is_kept=False),
    "two Hosts": Row(get(host=HOST * 2) + MARKER),
    "two Hosts in HTTP/1.0": Row(get(host=HOST * 2, version=b"HTTP/1.0") + MARKER),
    "Host before a space": Row(get(host=b"Host : a\r\n") + MARKER),
    "Host with a space": host(b"a b"),
    "Host of two": host(b"a, b"),
    "Host with a path": host(b"a/b"),
    "Host with a user": host(b"a@b"),
    "Host with a query": host(b"a?b"),
    "Host with a fragment": host(b"a#b"),
    "Host with a backslash": host(b"a\\b"),
    "Host with markup": host(b"a<b>"),
    "Host with quotes": host(b'"a"'),
    "Host with 8 bits": host(b"a\xff"),
    "Host with a tab": host(b"a\tb"),
    "Host with no port": host(b"a:b"),
    "Host with two ports": host(b"a:1:2"),
    "Host with an open bracket": host(b"[::1"),
    "Host of IPv6": served(get(host=b"Host: [::1]:80\r\n"), "GET /x 0 [::1]:80"),
    "Host with an empty port": served(get(host=b"Host: a:\r\n"), "GET /x 0 a:"),
    "absolute-form": served(get(target=b"http://a/x"), "GET /x 0"),
    "absolute-form of another Host": served(get(target=b"http://b:8/x"), "GET /x 0 b:8"),
    "absolute-form of IPv6": served(get(target=b"http://[::1]/x"), "GET /x 0 [::1]"),
    "absolute-form with a user": Row(get(target=b"http://u@a/x") + MARKER),
    "absolute-form without a path": served(get(target=b"http://a"), "GET / 0"),
    "absolute-form without a host": Row(get(target=b"http:///x") + MARKER),
    "absolute-form with no port": Row(get(target=b"http://a:b/x") + MARKER),
    "absolute-form with port 99999": Row(get(target=b"http://a:99999/x") + MARKER),
    "asterisk-form": served(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", "OPTIONS * 0"),
    "CONNECT": Row(b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n" + MARKER),
    "CONNECT with a body": Row(b"CONNECT a:80 HTTP/1.1\r\n%bContent-Length: %b\r\n\r\n" % (HOST, SIZE) + MARKER),
    "a relative target": Row(get(target=b"x") + MARKER),
    "no target": Row(b"GET HTTP/1.1\r\n" + HOST + b"\r\n" + MARKER),
    "a target with a space": Row(get(target=b"/x y") + MARKER),
    "a target with NUL": Row(get(target=b"/x\0") + MARKER),
    "a target with a control": Row(get(target=b"/x\x01") + MARKER),
    "a target with 8 bits": Row(get(target=b"/x\xff") + MARKER),
    "a target with a line in it": served(get(target=b"/x%0d%0aa"), "GET /x\\r\\na 0"),
    "a target that decodes badly": served(get(target=b"/x%zz%f"), "GET /x%zz%f 0"),
}
SIZES = {
    "a field of 17 KiB": Row(get(b"X: %b\r\n" % (b"a" * 17_000)) + MARKER, (431,)),
    "a field without end": Row(get(host=b"X: " + b"a" * 140_000), (431,)),
    "a name without end": Row(get(host=b"X" * 140_000), (431,)),
    "a target without end": Row(b"GET /" + b"a" * 140_000, (431,)),
    "a head of 70 KB": Row(get(b"X: %b\r\n" % (b"a" * 7_000) * 10), (431,)),
    "most fields": served(get(b"X: a\r\n" * (FIELDS - 1)), "GET /x 0"),
    "too many fields": Row(get(b"X: a\r\n" * FIELDS) + MARKER, (431,)),
    "empty lines without end": Row(b"\r\n" * 70_000, (431,)),
}
PIPELINED = {
    "two": served(get() + get(target=b"/y"), "GET /x 0", "GET /y 0"),
    "a bad second": Row(get() + get(version=b"HTTP/2.0") + MARKER, (200, 505), ("GET /x 0",)),
    "a bad second's framing": Row(get() + length(b"-1"), (200, 400), ("GET /x 0",)),
    "a bad second's chunks": Row(get() + post(CHUNKED, b"g\r\n") + MARKER, (200, 400), ("GET /x 0",)),
    "CONNECT second": Row(get() + b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n" + MARKER, (200, 400), ("GET /x 0",)),
    "junk second": Row(get() + b"\0" * 9 + MARKER, (200, 400), ("GET /x 0",)),
    "a last one in the middle": served(
        get() + get(b"Connection: close\r\n", target=b"/y") + MARKER, "GET /x 0", "GET /y 0", is_kept=False
    ),
    "a body before": served(length(SIZE) + get(target=b"/y"), f"POST /x {len(MARKER)}", "GET /y 0"),
    "100": served(get() * 100, *["GET /x 0"] * 100),
}
HTTP = {
    f"{group}: {name}": row
    for group, rows in {
        "framing": FRAMING,
        "chunks": CHUNKS,
        "lines": LINES,
        "targets": TARGETS,
        "sizes": SIZES,
        "pipelined": PIPELINED,
    }.items()
    for name, row in rows.items()
}
# The client closes its side behind these.
HALF_CLOSED = {
    "a whole request": served(get(), "GET /x 0", is_kept=False),
    "two": served(get() + get(target=b"/y"), "GET /x 0", "GET /y 0", is_kept=False),
    "a whole body": served(length(SIZE), f"POST /x {len(MARKER)}", is_kept=False),
    "nothing": Row(b"", ()),
    "half a line": Row(b"GET /x HT", ()),
    "half a head": Row(get()[:-2], ()),
    "half a second head": Row(get() + MARKER[:-2], (200,), ("GET /x 0",)),
    "half a body": Row(length(b"100"), ()),
    "half a chunk": Row(post(CHUNKED, b"5\r\nab"), ()),
    "no last chunk": Row(post(CHUNKED, b"2\r\nab\r\n"), ()),
    "half the trailers": Row(post(CHUNKED, b"2\r\nab\r\n0\r\nX: a\r\n"), ()),
}

KEY = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
HANDSHAKES = {
    "no key": served(get(UPGRADE + VERSION, target=b"/ws"), "GET /ws 0"),
    "a short key": Row(get(UPGRADE + VERSION + b"Sec-WebSocket-Key: YQ==\r\n", target=b"/ws") + MARKER),
    "a key that is no base64": Row(get(UPGRADE + VERSION + b"Sec-WebSocket-Key: ?\r\n", target=b"/ws") + MARKER),
    "two keys": Row(get(UPGRADE + VERSION + KEY * 2, target=b"/ws") + MARKER),
    "no version": Row(get(UPGRADE + KEY, target=b"/ws") + MARKER),
    "version 8": Row(get(UPGRADE + KEY + b"Sec-WebSocket-Version: 8\r\n", target=b"/ws") + MARKER, (426,)),
    "two versions": Row(get(UPGRADE + KEY + VERSION * 2, target=b"/ws") + MARKER, (426,)),
    "no Host": Row(get(UPGRADE + KEY + VERSION, target=b"/ws", host=b"") + MARKER),
    "another Origin": Row(get(UPGRADE + KEY + VERSION + b"Origin: http://b\r\n", target=b"/ws") + MARKER, (403,)),
    "no such path": Row(get(UPGRADE + KEY + VERSION, target=b"/none") + MARKER, (404,)),
    "HTTP/1.0": served(
        get(UPGRADE + KEY + VERSION, target=b"/ws", version=b"HTTP/1.0") + MARKER, "GET /ws 0", is_kept=False
    ),
}

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
MOST = 1 << 20  # bytes of a message


def frame(
    opcode: int, payload: bytes = b"", *, first: int = FIN, mask: bytes | None = b"\1\2\3\4", size: bytes = b""
) -> bytes:
    """Return a client's frame. first: bits beside the opcode. size: as its length is said to be, 0 to 8 bytes."""
    if not size:
        count = len(payload)
        size = bytes((count,)) if count < 126 else b"\x7e" + count.to_bytes(2) if count < 1 << 16 else b""
        size = size or b"\x7f" + count.to_bytes(8)
    if mask is None:
        return bytes((first | opcode,)) + size + payload
    pad = mask * (len(payload) // 4 + 1)
    masked = (int.from_bytes(payload) ^ int.from_bytes(pad[: len(payload)])).to_bytes(len(payload))
    return bytes((first | opcode, size[0] | 0x80)) + size[1:] + mask + masked


def close(code: int, reason: bytes = b"") -> bytes:
    """Return a client's close frame."""
    return frame(CLOSE, code.to_bytes(2) + reason)


@dataclass(frozen=True, slots=True)
class Frames:
    """data: what is sent behind the handshake. code: of the close; None: the socket is open. said: what came before.

    The application says again what it was told. code 1005: a close frame without a code.
    """

    data: bytes
    code: int | None = None
    said: list[tuple[int, bytes]] = field(default_factory=list)


HELLO = frame(TEXT, b"hello")
SAID = [(TEXT, b"hello")]
FAILING = {
    "a request": (MARKER * 3, 1002),
    "TLS": (bytes.fromhex("160301020001"), 1002),
    "NULs": (bytes(40), 1002),
    **{f"a reserved bit, {bit:x}": (frame(TEXT, b"a", first=FIN | bit), 1002) for bit in (0x10, 0x20, 0x40)},
    "a reserved bit of a ping": (frame(PING, b"a", first=FIN | 0x40), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"a"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no mask": (frame(TEXT, b"hello", mask=None), 1002),
    "a ping without a mask": (frame(PING, mask=None), 1002),
    "a ping in two": (frame(PING, b"a", first=0) + frame(CONT, b"b"), 1002),
    "a close in two": (frame(CLOSE, b"\x03\xe8", first=0), 1002),
    "a ping of 126": (frame(PING, b"a" * 126), 1002),
    "a ping with a long length": (frame(PING, b"a", size=b"\x7f" + (1 << 63).to_bytes(8)), 1002),
    "a close of 126": (close(1000, b"a" * 124), 1002),
    "a close of 1 byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"a close with {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "a close with bad UTF-8": (close(1000, b"\xff"), 1007),
    "a continuation of nothing": (frame(CONT, b"a"), 1002),
    "a message in a message": (frame(TEXT, b"a", first=0) + frame(TEXT, b"b"), 1002),
    "a continuation behind the end": (frame(TEXT, b"", first=0) + frame(CONT, b"", first=0) + frame(BINARY), 1002),
    "no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "UTF-8 that is too long": (frame(TEXT, b"\xc0\xaf"), 1007),
    "UTF-8 past the end": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "half a character": (frame(TEXT, b"\xe2\x82"), 1007),
    "no UTF-8 in fragments": (frame(TEXT, b"\xe2", first=0) + frame(CONT, b"a"), 1007),
    "half a character in fragments": (frame(TEXT, b"a", first=0) + frame(CONT, b"\xe2\x82"), 1007),
    "a header that is too large": (frame(BINARY, size=b"\x7f" + (MOST + 1).to_bytes(8)), 1009),
    "a header of 63 bits": (frame(BINARY, size=b"\x7f" + ((1 << 63) - 1).to_bytes(8)), 1009),
    "fragments that are too large": (frame(BINARY, b"a" * MOST, first=0) + frame(CONT, size=b"\1"), 1009),
    "too many fragments": (frame(TEXT, first=0) + frame(CONT, first=0) * 1024, 1009),
}
PASSING = {
    "empty": Frames(frame(TEXT) + frame(BINARY), None, [(TEXT, b""), (BINARY, b"")]),
    "a long length for few": Frames(frame(TEXT, b"hello", size=b"\x7f" + (5).to_bytes(8)), None, SAID),
    "a medium length for few": Frames(frame(TEXT, b"hello", size=b"\x7e\0\5"), None, SAID),
    "another mask": Frames(frame(TEXT, b"hello", mask=bytes(4)), None, SAID),
    "fragments": Frames(frame(TEXT, b"he", first=0) + frame(CONT, b"l", first=0) + frame(CONT, b"lo"), None, SAID),
    "a character in two fragments": Frames(
        frame(TEXT, b"\xe2", first=0) + frame(CONT, b"\x82\xac"), None, [(TEXT, "€".encode())]
    ),
    "a ping between fragments": Frames(
        frame(TEXT, b"hel", first=0) + frame(PING, b"p") + frame(CONT, b"lo"), None, [(PONG, b"p"), *SAID]
    ),
    "a pong unasked": Frames(frame(PONG, b"a") + HELLO, None, SAID),
    "the largest": Frames(frame(BINARY, b"a" * MOST), None, [(BINARY, b"a" * MOST)]),
    "the largest, in fragments": Frames(
        frame(BINARY, b"a" * (MOST - 1), first=0) + frame(CONT, b"a"), None, [(BINARY, b"a" * MOST)]
    ),
    "a ping of 125": Frames(frame(PING, b"a" * 125), None, [(PONG, b"a" * 125)]),
    **{f"a close with {code}": Frames(close(code, b"a"), code) for code in (1000, 1001, 1003, 1011, 3000, 4999)},
    "a close without a code": Frames(frame(CLOSE), 1005),
    "frames behind a close": Frames(close(1000) + HELLO + MARKER, 1000),
}
SOCKETS = PASSING | {f"fails: {name}": Frames(data, code) for name, (data, code) in FAILING.items()}
# Behind these the client closes its side, in the middle of a frame or a message.
CUT_OFF = {
    "nothing": b"",
    "half a header": HELLO[:1],
    "half a frame": HELLO[:-2],
    "half a message": frame(TEXT, b"a", first=0),
    "half a close": close(1000)[:-1],
}
