"""State on the wire: what is encoded comes back equal, and what would not is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from asgictl.wire.messages import plain
from asgictl.wire.state import decode_state, encode_state
from tests.plain import TEXTS, VALUES

text = st.text(max_size=20)
values = st.one_of(text, st.binary(max_size=20), st.integers(0, 2**63 - 1), st.none(), st.booleans())


@given(st.dictionaries(text, st.one_of(values, st.lists(st.integers(0, 2**63 - 1)))))
def test_every_state_survives_the_wire(state: dict[str, Any]) -> None:
    assert decode_state(encode_state(state)) == state


def test_an_empty_state_costs_nothing() -> None:
    assert encode_state({}) == b""
    assert decode_state(b"") == {}


def test_a_state_that_messagepack_cannot_carry_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode_state({"a": object()})


@pytest.mark.parametrize("key", [1, 1.5, True, None, b"a", (1, 2), (), frozenset({"a"})])
@pytest.mark.parametrize("place", [lambda bad: bad, lambda bad: {"a": bad}, lambda bad: {"a": [1, (2, [bad])]}])
def test_a_key_that_is_no_str_is_a_type_error_at_any_depth(key: Any, place: Callable[[Any], Any]) -> None:
    """A26."""
    with pytest.raises(TypeError):
        encode_state(place({"b": 1, key: 2}))


def test_what_is_known_is_not_looked_at_again() -> None:
    state: dict[Any, Any] = {1: 2}
    known = msgpack.encode(state)
    assert encode_state(state, known) == known
    with pytest.raises(TypeError):
        encode_state(state, known + b"x")


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_a_value_of_a_subclass_travels_as_the_plain_type(value: object, kind: object) -> None:
    (found,) = decode_state(encode_state({"x": value})).values()
    assert (found, type(found)) == (kind, type(kind))
    (nested,) = decode_state(encode_state({"x": [{"y": value}]}))["x"][0].values()
    assert type(nested) is type(kind)


@pytest.mark.parametrize("text", TEXTS)
def test_a_key_of_a_subclass_is_the_plain_text(text: str) -> None:
    assert list(decode_state(encode_state({text: 1}))) == ["hello"]


@pytest.mark.parametrize("value", [object(), plain, [object()], {"a": object()}, "lone \udc80"])
def test_what_has_no_plain_type_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_state({"x": value})
