"""What two interface processes say to each other while one hands its WebSockets over to the other.

Each identity has a line of its own, a Unix stream socket. A message travels in a frame: its length in 4 bytes, then the
message as MessagePack. The descriptor of a Record's socket travels with the first byte of its frame, so a reader that
reads each length by itself knows whose descriptor it was given, and notices one that got lost.

Versions interoperate as those of wire/messages do: fields are only ever appended, with a default.
"""

from typing import TypeVar

import msgspec

from asgictl.errors import WireError
from asgictl.wire.manifest import Path
from asgictl.wire.messages import Frame, Wire, check_frames, encoder

VERSION = 2  # 1 had no waited_seconds
LENGTH_BYTES = 4
MOST_BYTES = 16 << 20  # of a message; an inbox, scope and state take 1 MiB, some KiB and 64 KiB by default
NOTHING = (0, 0)

Position = tuple[int, int]  # a stream entry's id: Redis milliseconds, sequence


class Offer(Wire, tag="offer", frozen=True):
    """Old to new: take the sockets of this identity. replies: the position up to which its reply stream was read."""

    version: int
    identity: str
    epoch: bytes
    replies: Position


class Following(Wire, tag="following", frozen=True):
    """New to old: the identity's reply stream is read and its lease renewed here too; hand over."""


class Declined(Wire, tag="declined", frozen=True):
    """New to old: no socket of this identity can be taken. version: of the new process."""

    version: int


class Withdrawn(Wire, tag="withdrawn", frozen=True):
    """Old to new: nothing is handed over after all, and nothing was."""


class Fenced(Wire, tag="fenced", frozen=True):
    """Old to new: others have taken the identity for dead, and its connections with it."""


class Record(Wire, tag="record", frozen=True):
    """Old to new, with a descriptor: a socket between two turns, which is neither read nor written any more.

    path: of the manifest that accepted it. turn, received, suspects: the numbers of its turns.Connection.
    unread: what was read of the client and is not parsed, from the beginning of a frame on.
    replies, broadcasts: the positions up to which it was given what it is to have; they are of this epoch.
    groups: of which it is a member, each with the broadcast position at its join.
    waited_seconds: for which the oldest frame of the inbox has waited.
    """

    connection: str
    scope: bytes
    path: Path
    state: bytes
    turn: int
    received: int
    suspects: int
    wants_disconnect: bool
    unread: bytes
    inbox: list[Frame]
    groups: dict[str, Position]
    epoch: bytes
    replies: Position
    broadcasts: Position
    waited_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_frames(self.inbox)


class Taken(Wire, tag="taken", frozen=True):
    """New to old: the record and the descriptor are here, and untouched."""

    connection: str


class Refused(Wire, tag="refused", frozen=True):
    """New to old: the record came without its descriptor, or cannot be served; the socket stays where it was."""

    connection: str


class Yours(Wire, tag="yours", frozen=True):
    """Old to new: the socket is forgotten here; serve it."""

    connection: str


class NoneLeft(Wire, tag="none-left", frozen=True):
    """Old to new: no connection of the identity is left here; it is the new process's alone."""


FromOld = Offer | Withdrawn | Fenced | Record | Yours | NoneLeft
FromNew = Following | Declined | Taken | Refused

_from_old: msgspec.msgpack.Decoder[FromOld] = msgspec.msgpack.Decoder(FromOld)
_from_new: msgspec.msgpack.Decoder[FromNew] = msgspec.msgpack.Decoder(FromNew)
_T = TypeVar("_T")


def encode_frame(message: FromOld | FromNew) -> bytes:
    """Return a message in its frame."""
    content = encoder.encode(message)
    return len(content).to_bytes(LENGTH_BYTES) + content


def length_of(header: bytes) -> int:
    """Return the length of the message behind a frame's first LENGTH_BYTES; raises WireError."""
    length = int.from_bytes(header)
    if length > MOST_BYTES:
        raise WireError(f"a message of {length} bytes, of at most {MOST_BYTES}, in a hand-over")
    return length


def decode_from_old(content: bytes) -> FromOld:
    """Decode what the old process says; raises WireError."""
    return _decode(_from_old, content)


def decode_from_new(content: bytes) -> FromNew:
    """Decode what the new process says; raises WireError."""
    return _decode(_from_new, content)


def _decode(decoder: msgspec.msgpack.Decoder[_T], content: bytes) -> _T:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of hand-over version {VERSION}: {error}") from error
