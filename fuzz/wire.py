"""What must hold for whatever stands in Redis: decoders raise WireError alone, and what they return is encoded again.

A reader passes over what it cannot read, and reads on.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgictl.errors import WireError
from asgictl.layers.redis.dead_letters import DeadLetter, dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.reader import Followed, Reader, position_in
from asgictl.wire.manifest import Router, encode_manifest
from asgictl.wire.messages import (
    FIELD,
    Job,
    Wire,
    decode_broadcast,
    decode_event,
    decode_reply,
    decode_scope,
    decode_worker_message,
    encode,
    encode_scope,
)
from asgictl.wire.state import decode_state, encode_state

DECODERS: list[Callable[[bytes, bytes], Wire]] = [decode_event, decode_reply, decode_worker_message, decode_broadcast]
FIELDS = [FIELD, b"2", b"0", b"", b"\xff"]


class Link:
    """Takes a reader's commands, and answers none."""

    up = True

    def __init__(self, begin: Callable[[], Awaitable[None]]) -> None:
        self.begin = begin

    def call(self, *_: Any, **__: Any) -> None:
        """Take a command."""

    def drop(self) -> None:
        """Leave."""


def check(data: bytes) -> None:
    """Decode an input as each thing that it may stand for; raises AssertionError, or what should not be raised."""
    for decode in DECODERS:
        _check_message(decode, data)
    _check_parts(data)
    _check_router(data)
    _check_reader(data)
    assert min(position_in(data)) >= 0


def _check_message(decode: Callable[[bytes, bytes], Wire], data: bytes) -> None:
    for field in FIELDS:
        try:
            found = decode(field, data)
        except WireError:
            continue
        assert encode(decode(*encode(found))) == encode(found)


def _check_parts(data: bytes) -> None:
    try:
        scope = decode_scope(data)
        assert decode_scope(encode_scope(scope)) == scope
        assert isinstance(scope.local_path, str)
    except WireError:
        pass
    try:
        state = decode_state(data)
        assert encode_state(decode_state(encode_state(state))) == encode_state(state)
    except (WireError, TypeError):  # TypeError: of keys, by encode_state alone
        decoded = _decoded(data)
        assert decoded is None or encode_state({"a": 1})


def _decoded(data: bytes) -> dict[str, Any] | None:
    try:
        return decode_state(data)
    except WireError:
        return None


def _check_router(data: bytes) -> None:
    try:
        router = Router.decode(data)
    except WireError:
        return
    assert Router.decode(encode_manifest(router.manifest)).manifest == router.manifest
    router.pool("/a/b")
    router.match("/a")


def _check_reader(data: bytes) -> None:
    """A bad entry in a stream, with a good one behind it; and what becomes of a bad event that is given up."""
    good = encode(Job("1", 1, "a", b""))[1]
    heard: list[object] = []
    rejections: list[str] = []

    def hear(_entry_id: bytes, fields: list[bytes]) -> None:
        heard.append(decode_event(fields[0], fields[1]))

    reader = Reader(Link, [Followed("k", hear, trim_bytes=1)], reject=rejections.append)  # type: ignore[type-var]
    reader._take([[b"k", [[b"1-1", [FIELD, data]], [b"1-2", [data, good]], [b"1-3", [FIELD, good]]]]])
    assert len(heard) + len(rejections) == 3
    assert repr(heard[-1]) == repr(decode_event(FIELD, good))
    dead_letter_command(Keys("default"), "http.request", data, "x")
    try:
        event = decode_event(FIELD, data)
    except WireError:
        return
    try:
        letter = DeadLetter("1-1", "a", "b", event)
        assert letter.text
    except WireError:
        pass
