"""A dict of a user's that travels: a connection's state, a job's content."""

from typing import Any

from msgspec import msgpack

from asgictl.errors import WireError
from asgictl.wire.messages import FIELD, decode, encoder

_states = msgpack.Decoder(dict[str, Any])


def encode_state(state: dict[str, Any], known: bytes = b"") -> bytes:
    """Encode a connection's state, or a job's content. known: an encoding that needs no check, as nothing has changed.

    Raises TypeError for a value that MessagePack cannot carry, and for a key that is no str, with which it would not
    come back.
    """
    data = encoder.encode(state) if state else b""
    if data != known:
        try:
            _check_keys(decode_state(data))
        except WireError as error:
            raise TypeError(str(error)) from error
    return data


def _check_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r:.60} is not a str")
            _check_keys(each)
    elif isinstance(value, list):
        for each in value:
            _check_keys(each)


def decode_state(data: bytes) -> dict[str, Any]:
    """Decode what encode_state made; raises WireError."""
    return decode(_states, FIELD, data) if data else {}
