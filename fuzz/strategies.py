"""Inputs as Hypothesis draws them: mutations of kept inputs along their structure, and frames made anew."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

_tokens = re.compile(rb"\r\n|[0-9A-Za-z_-]+|[^0-9A-Za-z]", re.DOTALL)
MOST_CHANGES = 6
DEPTH = 8  # at which messages are changed
# What parsers stumble over, each of them a whole line or a part of one.
WORDS = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"0", b"1", b"-1", b"+1", b"0x1", b"\0", b"\x7f", b"\xff"),
    *(b"18446744073709551616", b"ffffffffffffffff", b"GET", b"HEAD", b"POST", b"CONNECT", b"OPTIONS", b"PRI", b"*"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"/early", b"/later", b"/parts", b"/never", b"/abort", b"/hold", b"/bye"),
    *(b"/refuse", b"%", b"%00", b"?a=b", b"#a", b"http://b", b"chunked", b"gzip", b"close", b"keep-alive", b"upgrade"),
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 100\r\n",
    b"Content-Length: 100000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Forwarded-For: 192.0.2.9\r\n",
    b"\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\x81\x85\0\0\0\0hello",
    b"\x01\x82\0\0\0\0he",
    b"\x80\x83\0\0\0\0llo",
    b"\x89\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
]


@st.composite
def mutated(draw: DrawFn, kept: Sequence[bytes]) -> bytes:
    """Draw one or two kept inputs, with some of their tokens taken away, repeated, moved or replaced."""
    chosen = draw(st.lists(st.sampled_from(kept), min_size=1, max_size=2))
    tokens: list[bytes] = _tokens.findall(b"".join(chosen))
    for _ in range(draw(st.integers(0, MOST_CHANGES))):
        at = draw(st.integers(0, len(tokens)))
        change = draw(st.sampled_from(["insert", "replace", "delete", "repeat", "swap", "bytes"]))
        count = draw(st.integers(1, 4))
        if change == "insert":
            tokens[at:at] = [draw(st.sampled_from(WORDS))]
        elif change == "replace":
            tokens[at : at + count] = [draw(st.sampled_from(WORDS))]
        elif change == "delete":
            del tokens[at : at + count]
        elif change == "repeat":
            tokens[at:at] = tokens[at : at + count] * draw(st.sampled_from([1, 2, 20, 200]))
        elif change == "swap":
            tokens[at : at + 2 * count] = tokens[at + count : at + 2 * count] + tokens[at : at + count]
        else:
            tokens[at:at] = [draw(st.binary(max_size=8))]
    return b"".join(tokens)


@st.composite
def frame(draw: DrawFn) -> bytes:
    """Draw a client's frame, mostly a valid one."""
    opcode = draw(st.sampled_from([0, 1, 2, 0, 1, 2, 8, 9, 10, 3, 11]))
    first = draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0, 0xC0, 0x90])) | opcode
    texts = st.text(max_size=8).map(str.encode) | st.sampled_from([b"\xff", b"\xe2\x82", b"\xac", b"\xed\xa0\x80"])
    payload = draw(texts | st.binary(max_size=140))
    if opcode == 8 and draw(st.booleans()):
        payload = draw(st.sampled_from([0, 999, 1000, 1001, 1005, 1006, 1015, 3000, 5000])).to_bytes(2) + payload
    size = len(payload)
    size += draw(st.sampled_from([0] * 12 + [1, 100_000, (1 << 20) + 1, 1 << 62]))
    forms = [bytes((size,))] if size < 126 else []
    forms += [b"\x7e" + size.to_bytes(2)] if size < 1 << 16 else []
    length = draw(st.sampled_from([*forms[:1] * 8, *forms, b"\x7f" + size.to_bytes(8)]))
    if draw(st.sampled_from([False] * 15 + [True])):
        return bytes((first,)) + length + payload  # without a mask
    mask = draw(st.sampled_from([bytes(4), b"\1\2\3\4"]))
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((first, length[0] | 0x80)) + length[1:] + mask + masked


frames = st.lists(frame(), max_size=12).map(b"".join)
places = st.lists(st.integers(1, 2000), max_size=12) | st.just(list(range(1, 400)))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def paths(value: object, at: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Return where each element of nested lists stands."""
    found = [at]
    if isinstance(value, list) and len(at) < DEPTH:
        for index, each in enumerate(value):
            found += paths(each, (*at, index))
    return found


def _instead(other: Any, _replaced: Any) -> list[Any]:
    return [other]


def _changed(value: Any, at: tuple[int, ...], change: Callable[[Any], list[Any]]) -> Any:
    if not at:
        return change(value)[0] if change(value) else None
    index, rest = at[0], at[1:]
    if rest:
        return [_changed(each, rest, change) if number == index else each for number, each in enumerate(value)]
    return [*value[:index], *change(value[index]), *value[index + 1 :]]


@st.composite
def mutated_message(draw: DrawFn, kept: Sequence[bytes]) -> bytes:
    """Draw a kept message in which values, or bytes, are replaced, taken away or repeated."""
    data = draw(st.sampled_from(kept))
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    for _ in range(draw(st.integers(0, MOST_CHANGES))):
        at = draw(st.sampled_from(paths(value)))
        other = draw(values)
        kind = draw(st.sampled_from(["replace", "replace", "delete", "repeat"]))
        if kind == "replace":
            value = _changed(value, at, partial(_instead, other))
        elif kind == "delete":
            value = _changed(value, at, lambda _: [])
        else:
            value = _changed(value, at, lambda each: [each, each])
    encoded = bytearray(msgspec.msgpack.encode(value))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        begin = draw(st.integers(0, len(encoded)))
        encoded[begin : begin + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(encoded)
