"""What two interfaces say to each other: it comes back equal, and bytes that are no message are a WireError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from asgictl.errors import WireError
from asgictl.wire.handover import (
    LENGTH_BYTES,
    MOST_BYTES,
    VERSION,
    Declined,
    Following,
    NoneLeft,
    Offer,
    Record,
    Refused,
    Taken,
    Yours,
    decode_from_new,
    decode_from_old,
    encode_frame,
    length_of,
)
from asgictl.wire.manifest import Path

position = st.tuples(st.integers(0, 2**63), st.integers(0, 2**63))
record = st.builds(
    Record,
    *(st.text(), st.binary(), st.builds(Path, st.text(), st.booleans(), st.booleans(), st.booleans())),
    *(st.binary(), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 64), st.booleans()),
    *(
        st.binary(),
        st.lists(st.text() | st.binary()),
        st.dictionaries(st.text(), position),
        st.binary(),
        position,
        position,
    ),
)


@given(record | st.builds(Offer, st.just(VERSION), st.text(), st.binary(), position) | st.builds(Yours, st.text()))
def test_what_the_old_process_says_comes_back_equal(message: Record | Offer | Yours) -> None:
    framed = encode_frame(message)
    assert length_of(framed[:LENGTH_BYTES]) == len(framed) - LENGTH_BYTES
    assert decode_from_old(framed[LENGTH_BYTES:]) == message


@pytest.mark.parametrize("message", [Following(), Declined(VERSION), Taken("i/1"), Refused("i/1")])
def test_what_the_new_process_says_comes_back_equal(message: Following | Declined | Taken | Refused) -> None:
    assert decode_from_new(encode_frame(message)[LENGTH_BYTES:]) == message


def test_a_newer_version_appends_fields_that_an_older_one_passes_over() -> None:
    assert decode_from_old(msgpack.encode(["yours", "i/1", "news"])) == Yours("i/1")
    assert decode_from_old(msgpack.encode(["none-left", "news"])) == NoneLeft()


@given(st.binary(max_size=100))
def test_bytes_that_are_no_message_are_a_wire_error(content: bytes) -> None:
    for decode in (decode_from_old, decode_from_new):
        with pytest.raises(WireError):
            decode(content)


def test_an_inbox_holds_text_and_bytes_alone() -> None:
    path = Path("", True, True, True)
    record = Record("i/1", b"", path, b"", 1, 0, 0, True, b"", [], {}, b"", (0, 0), (0, 0))
    fields = msgpack.decode(encode_frame(record)[LENGTH_BYTES:])
    fields[10] = [1]
    with pytest.raises(WireError):
        decode_from_old(msgpack.encode(fields))


def test_a_frame_that_is_too_long_is_refused_by_its_length() -> None:
    with pytest.raises(WireError):
        length_of((MOST_BYTES + 1).to_bytes(LENGTH_BYTES))
