"""The wire: what is encoded comes back equal, and bytes that are no message are a WireError."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from asgictl.errors import WireError
from asgictl.wire.messages import (
    VERSION,
    Accept,
    Broadcast,
    Chunk,
    Close,
    Connect,
    Credit,
    Disconnect,
    Done,
    Frames,
    Gone,
    Lost,
    Receive,
    Request,
    Response,
    Scope,
    Want,
    Wire,
    decode_broadcast,
    decode_event,
    decode_reply,
    decode_scope,
    decode_worker_message,
    encode,
    encode_scope,
    may_repeat,
    plain,
)
from asgictl.wire.state import decode_state
from tests.plain import TEXTS

text = st.text(max_size=20)
data = st.binary(max_size=20)
number = st.integers(0, 2**63 - 1)
frame = st.one_of(text, data)
headers = st.lists(st.tuples(data, data), max_size=3)
address = st.one_of(st.none(), st.tuples(text, st.one_of(st.none(), st.integers(0, 65535))))
scopes = st.builds(
    Scope, text, text, text, text, text, data, data, headers, address, address, st.lists(text, max_size=2)
)
events: st.SearchStrategy[Wire] = st.one_of(
    st.builds(Request, text, number, scopes, data, st.booleans(), number),
    st.builds(Connect, text, number, number, data, data),
    st.builds(Receive, text, number, number, data, data, st.lists(frame, max_size=4), number, st.booleans()),
    st.builds(Disconnect, text, number, number, data, data, number, text),
)
accepts = st.builds(Accept, st.one_of(st.none(), text), headers)
closes = st.builds(Close, number, text, number)
groups = st.lists(text, max_size=3)
replies: st.SearchStrategy[Wire] = st.one_of(
    st.builds(Response, text, number, number, headers, data, st.booleans(), st.booleans(), number, data, text),
    st.builds(Want, text, number, data, text, number),
    st.builds(Frames, text, st.lists(frame, max_size=4)),
    st.builds(Lost, text, number, number, st.booleans()),
    st.builds(
        Done,
        text,
        number,
        st.lists(frame, max_size=4),
        data,
        st.one_of(st.none(), accepts),
        st.one_of(st.none(), closes),
        groups,
        groups,
        number,
        own=st.lists(st.tuples(text, frame), max_size=3),
    ),
)
letters: st.SearchStrategy[Wire] = st.one_of(
    st.builds(Chunk, text, data, number, data, st.booleans()),
    st.builds(Credit, text, data, number),
    st.builds(Gone, text, data),
)
DECODERS: list[Callable[[bytes], object]] = [
    lambda value: decode_event(b"1", value),
    lambda value: decode_reply(b"1", value),
    lambda value: decode_worker_message(b"1", value),
    lambda value: decode_broadcast(b"1", value),
    decode_scope,
    decode_state,
]


@given(events)
def test_every_event_survives_the_wire(event: Wire) -> None:
    assert decode_event(*encode(event)) == event


@given(replies)
def test_every_reply_survives_the_wire(reply: Wire) -> None:
    assert decode_reply(*encode(reply)) == reply


@given(letters)
def test_every_letter_survives_the_wire(letter: Wire) -> None:
    assert decode_worker_message(*encode(letter)) == letter


@given(st.builds(Broadcast, text, frame, st.booleans(), text))
def test_every_broadcast_survives_the_wire(broadcast: Broadcast) -> None:
    assert decode_broadcast(*encode(broadcast)) == broadcast


@given(scopes)
def test_every_scope_survives_the_wire(scope: Scope) -> None:
    assert decode_scope(encode_scope(scope)) == scope


def test_text_stays_text_and_binary_stays_binary() -> None:
    turn = Receive("c", 1, 1, b"", b"", ["a", b"a"], 0)
    decoded = decode_event(*encode(turn))
    assert isinstance(decoded, Receive)
    assert [type(frame) for frame in decoded.frames] == [str, bytes]


@pytest.mark.parametrize("decode", DECODERS)
def test_random_bytes_are_a_wire_error_and_nothing_else(decode: Callable[[bytes], object]) -> None:
    @given(st.binary(max_size=60))
    def check(value: bytes) -> None:
        with suppress(WireError):
            decode(value)

    check()


@given(st.one_of(events, replies, letters), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_message_is_a_wire_error_or_another_message(message: Wire, place: int, byte: int) -> None:
    field, value = encode(message)
    damaged = bytearray(value)
    damaged[place % len(damaged)] = byte
    for decode in (decode_event, decode_reply, decode_worker_message):
        with suppress(WireError):
            assert isinstance(decode(field, bytes(damaged)), Wire)


@pytest.mark.parametrize("nested", [b"\x91" * 5000 + b"\xc0", b"\x81\x01" * 5000 + b"\xc0"])
def test_a_message_nested_too_deeply_is_a_wire_error(nested: bytes) -> None:
    with pytest.raises(WireError):
        decode_broadcast(b"1", b"\x93\xa9broadcast\xa1g" + nested)


def test_a_frame_that_is_neither_text_nor_binary_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="text or binary"):
        decode_broadcast(b"1", b"\x93\xa9broadcast\xa1g\x07")


@pytest.mark.parametrize("field", [b"", b"0", b"9", b"one", b"\xff"])
def test_a_version_that_is_not_adjacent_is_named_beside_ours(field: bytes) -> None:
    with pytest.raises(WireError, match=f"{VERSION}") as caught:
        decode_event(field, b"")
    assert repr(field) in str(caught.value)


def test_the_next_version_is_read_with_the_fields_that_it_appended_passed_over() -> None:
    _, value = encode(Broadcast("g", "x"))
    assert value[0] == 0x95
    newer = b"\x96" + value[1:] + b"\x07"
    assert decode_broadcast(b"%d" % (VERSION + 1), newer) == Broadcast("g", "x")


def test_a_broadcast_of_before_closes_who_is_slow() -> None:
    assert decode_broadcast(b"1", b"\x93\xa9broadcast\xa1g\xa1x") == Broadcast("g", "x", may_drop=False)


def test_a_turn_of_before_has_no_frames_of_its_own() -> None:
    done = Done("i/1", 3, ["t"], b"", None, None, ["in"], ["out"])
    field, value = encode(done)
    assert (value[0], value[-1]) == (0x9E, 0x90)
    assert decode_reply(field, b"\x9d" + value[1:-1]) == done


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (decode_worker_message, Want("c", 1, b"1-0", "w", 1)),
        (decode_reply, Gone("c", b"1-0")),
        (decode_event, Lost("c", 1, 1, True)),
    ],
)
def test_a_message_of_another_direction_is_a_wire_error(
    decode: Callable[[bytes, bytes], object], message: Wire
) -> None:
    with pytest.raises(WireError):
        decode(*encode(message))


def test_fields_that_an_older_sender_does_not_know_have_the_meaning_of_their_absence() -> None:
    scope = Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None)
    for message, known in ((Request("c", 1, scope, b"b"), 5), (Response("c", 0, 200, [], b"b"), 6)):
        _, value = encode(message)
        fields = msgpack.decode(value)
        decode: Callable[[bytes, bytes], object] = decode_event if isinstance(message, Request) else decode_reply
        assert decode(b"1", msgpack.encode(fields[:known])) == message


@pytest.mark.parametrize(
    ("method", "repeatable"),
    [
        ("GET", True),
        ("HEAD", True),
        ("OPTIONS", True),
        ("TRACE", True),
        ("POST", False),
        ("PUT", False),
        ("get", False),
    ],
)
def test_a_request_may_run_again_when_its_method_is_safe(method: str, repeatable: bool) -> None:
    assert may_repeat(Request("c", 1, Scope(method, "", "", "", "", b"", b"", [], None, None), b"")) is repeatable


def test_a_turn_may_run_again_unless_its_frames_go_at_most_once() -> None:
    assert may_repeat(Connect("c", 1, 1, b"", b""))
    assert may_repeat(Disconnect("c", 2, 1, b"", b"", 1000, ""))
    assert may_repeat(Receive("c", 1, 1, b"", b"", ["x"], 0))
    assert not may_repeat(Receive("c", 1, 1, b"", b"", ["x"], 0, True))


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_a_subclass_is_the_plain_text_everywhere(text: str) -> None:
    assert (plain(text), type(plain(text))) == ("hello", str)
    broadcast = decode_broadcast(*encode(Broadcast(text, text)))
    assert (broadcast, type(broadcast.group), type(broadcast.frame)) == (Broadcast("hello", "hello"), str, str)


def test_what_is_plain_stays_the_same_object() -> None:
    for value in ("hello", b"hello", 5, None, ["hello"]):
        assert plain(value) is value
