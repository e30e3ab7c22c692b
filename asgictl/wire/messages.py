"""What crosses the wire: frozen structs, encoded as MessagePack arrays.

A stream entry has one field: its name is the wire version, its value the encoded struct. Adjacent versions
interoperate, because a new field is only ever appended, with a default: an older reader passes over it, a newer
one fills it in. Any other version is a WireError that names both.

Events travel from an interface to a worker on a channel's stream; replies to the one interface that holds the
connection, on its reply stream; messages to the one worker that runs a request, on its inbox; broadcasts to all.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from asgictl.errors import VersionError, WireError
from asgictl.wire.records import JobRecord

VERSION = 1
WINDOW_BYTES = 1 << 20  # of a body that may be on its way, in either direction
# Close codes (RFC 6455, section 7.4.1; the last two are IANA's). 1006: no close frame came.
ABNORMAL_CLOSURE, POLICY_VIOLATION, INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = 1006, 1008, 1011, 1012, 1013
_KNOWN = {b"%d" % version: version for version in range(max(VERSION - 1, 1), VERSION + 2)}

if TYPE_CHECKING:
    Frame = str | bytes  # one WebSocket message: text or binary (RFC 6455, section 5.6)
else:
    Frame = Any  # msgspec decodes no such union; check_frames stands in for it
Headers = list[tuple[bytes, bytes]]  # in order, duplicates kept, names in lower case (ASGI)
Address = tuple[str, int | None]


class Wire(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all that is encoded."""


def check_frames(frames: list[Frame]) -> None:
    for frame in frames:
        if not isinstance(frame, (str, bytes)):
            raise TypeError(f"a frame is text or binary, not {type(frame).__name__}")


class Scope(Wire, frozen=True):
    """The parts of an ASGI connection scope that travel; method is "" for a WebSocket."""

    method: str
    scheme: str
    http_version: str
    root_path: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: Headers
    client: Address | None
    server: Address | None
    subprotocols: list[str] = []

    @property
    def local_path(self) -> str:
        """The path as the application routes it: ASGI's `path` begins with `root_path`."""
        return self.path.removeprefix(self.root_path)


class Request(Wire, tag="request", frozen=True):
    """Event: one HTTP request. body: all of it, or b"" when `more`, for then it is to be pulled with Want.

    credit: bytes of the response's body that may be sent before the first Credit.
    """

    channel: ClassVar[str] = "http.request"
    connection: str
    attempt: int
    scope: Scope
    body: bytes
    more: bool = False
    credit: int = WINDOW_BYTES


class Turn(Wire, frozen=True):
    """Base of a WebSocket's events. `scope` and `state` stay encoded until somebody asks for them.

    number: 1 for the first turn of the connection, then counting; attempt: 1, and one more for each rerun.
    """

    connection: str
    number: int
    attempt: int
    scope: bytes
    state: bytes


class Connect(Turn, tag="connect", frozen=True):
    """Event: a handshake waits to be accepted or refused."""

    kind: ClassVar[str] = "connect"
    channel: ClassVar[str] = "websocket.connect"


class Receive(Turn, tag="receive", frozen=True):
    """Event: 1 to 16 frames, in the order in which the client sent them; after a death, one."""

    kind: ClassVar[str] = "receive"
    channel: ClassVar[str] = "websocket.receive"
    frames: list[Frame]
    first: int  # the number of the first frame among all that the connection has received
    at_most_once: bool = False

    def __post_init__(self) -> None:
        check_frames(self.frames)


class Disconnect(Turn, tag="disconnect", frozen=True):
    """Event: the connection has ended; its last turn. code and reason: RFC 6455, section 7.4."""

    kind: ClassVar[str] = "disconnect"
    channel: ClassVar[str] = "websocket.disconnect"
    code: int
    reason: str


class Job(Wire, tag="job", frozen=True):
    """Event: work for a background consumer, of which no interface knows.

    id: stable over reruns; attempt: 1, and one more for each rerun; name: the channel, as the application names it;
    content: a dict, as encode_state has it; delay_milliseconds: its wait from the commit; headers: those of its trace.
    """

    connection: ClassVar[str] = ""  # it comes from none
    id: str
    attempt: int
    name: str
    content: bytes
    delay_milliseconds: int = 0
    headers: Headers = []  # W3C Trace Context's, where it was sent in a trace

    @property
    def channel(self) -> str:
        return BACKGROUND + self.name


class Response(Wire, tag="response", frozen=True):
    """Reply: a part of an HTTP response. Sequence 0 carries status and headers; `more` says that another follows.

    `aborted`: the application failed after the response had begun, so the client must see it cut off.
    """

    connection: str
    sequence: int
    status: int
    headers: Headers
    body: bytes
    more: bool = False
    aborted: bool = False
    attempt: int = 1  # of the event that this answers
    entry: bytes = b""  # of that event: two workers may run one request, but only one of them is heard
    inbox: str = ""  # of the worker, when more follows under credit
    run_seconds: float = 0.0  # that the application took up to here
    worker: str = ""  # its name in `status`
    home: str = ""  # the inbox of its event loop, once it has answered: what affinity finds it by; of ASGI alone


class Want(Wire, tag="want", frozen=True):
    """Reply: the application reads its request's body, so send `size` more bytes of it to this inbox.

    Of an ASGI application also: it has taken so many bytes of frames, in sequence with its own; and, of size 0, it
    waits to hear that its client has left. sequence: from 1.
    """

    connection: str
    attempt: int
    entry: bytes
    inbox: str
    size: int
    sequence: int = 0


class Frames(Wire, tag="frames", frozen=True):
    """Reply: frames that a consumer did not want to wait for its commit, or what an ASGI application sends.

    sequence: of an ASGI application's, from 1, and the entry of its handshake; 0 for a consumer's.
    """

    connection: str
    frames: list[Frame]
    sequence: int = 0
    entry: bytes = b""

    def __post_init__(self) -> None:
        check_frames(self.frames)


class Accept(Wire, frozen=True):
    """The answer to a handshake: subprotocol and headers of the 101 response."""

    subprotocol: str | None
    headers: Headers


class Close(Wire, frozen=True):
    """Close the socket (RFC 6455, section 7.4), or refuse the handshake with an HTTP status."""

    code: int
    reason: str
    status: int = 403
    headers: Headers = []  # of the response that refuses, and its body
    body: bytes = b""


class Done(Wire, tag="done", frozen=True):
    """Reply: all that one turn produced. An empty `state` means unchanged.

    own: frames for this connection, of groups, each if it was a member before this turn.
    """

    connection: str
    number: int
    frames: list[Frame]
    state: bytes
    accept: Accept | None
    close: Close | None
    joins: list[str]
    leaves: list[str]
    attempt: int = 1  # of the event that this answers
    entry: bytes = b""  # of that event, and the inbox of the worker that the connection stays with: of ASGI alone
    inbox: str = ""
    run_seconds: float = 0.0  # that the consumer took
    own: list[tuple[str, Frame]] = []

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if self.own:
            check_frames([frame for _, frame in self.own])


class Lost(Wire, tag="lost", frozen=True):
    """Reply, in a dead worker's stead: an event left its hands unfinished. number is 0 for HTTP.

    Made by reap_worker.lua, which knows the order of these fields and of those that begin every event.
    """

    connection: str
    number: int
    attempt: int
    started: bool


class Closed(Wire, tag="closed", frozen=True):
    """Reply: an ASGI application closes its socket; in sequence with its Frames."""

    connection: str
    code: int
    reason: str
    sequence: int
    entry: bytes = b""


class Died(Wire, tag="died", frozen=True):
    """Reply, from reap_worker.lua to every interface: a worker is dead, and its sockets of ASGI too."""

    worker: str
    connection: str = ""


class Incoming(Wire, tag="incoming", frozen=True):
    """WorkerMessage: a frame for an ASGI application; sequence from 1."""

    connection: str
    entry: bytes
    frame: Frame
    sequence: int

    def __post_init__(self) -> None:
        check_frames([self.frame])


class Ended(Wire, tag="ended", frozen=True):
    """WorkerMessage: the client's socket has ended; in sequence with its Incoming."""

    connection: str
    entry: bytes
    code: int
    reason: str
    sequence: int


class Chunk(Wire, tag="chunk", frozen=True):
    """WorkerMessage: the next part of a request's body; `more`: another follows when wanted. sequence: from 1."""

    connection: str
    entry: bytes
    sequence: int
    data: bytes
    more: bool


class Credit(Wire, tag="credit", frozen=True):
    """WorkerMessage: the client was sent `size` bytes of the response's body, so as many more may follow.

    In sequence with the request's Chunks; of a socket's frames, with its Incoming.
    """

    connection: str
    entry: bytes
    size: int
    sequence: int = 0


class Gone(Wire, tag="gone", frozen=True):
    """WorkerMessage: nobody waits for this response any more."""

    connection: str
    entry: bytes


class InterfaceDied(Wire, tag="interface_died", frozen=True):
    """WorkerMessage, from reap_interface.lua to every event loop: an interface is dead, and its connections too."""

    interface: str
    connection: str = ""
    entry: bytes = b""


class Broadcast(Wire, tag="broadcast", frozen=True):
    """A frame for every member of a group. may_drop: one whose socket is full does without it, and is not closed.

    but: a connection that is not to have it, "" for none.
    """

    group: str
    frame: Frame
    may_drop: bool = False
    but: str = ""

    def __post_init__(self) -> None:
        check_frames([self.frame])


BACKGROUND = "background."  # begins the name of every channel of background work
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}  # RFC 9110, section 9.2.1
Event = Request | Connect | Receive | Disconnect | Job
TurnEvent = Connect | Receive | Disconnect
Sent = Broadcast | Job | JobRecord  # what anybody may send to others than those whose event it handles
Reply = Response | Want | Frames | Closed | Done | Lost | Died
LastReply = Response | Done | None  # what an event's commit holds; None for a job
WorkerMessage = Chunk | Credit | Gone | Incoming | Ended | InterfaceDied

_T = TypeVar("_T")
FIELD = b"%d" % VERSION  # names the value of an entry


def plain(value: _T) -> _T:
    """Return text or bytes of a subclass as str or bytes, whatever its own methods say; anything else as it is.

    Django's SafeString is one, whose __str__ returns itself.
    """
    if isinstance(value, str):
        return "".join((value,))  # type: ignore[return-value]  # one of exactly str is returned itself
    if isinstance(value, bytes):
        return b"".join((value,))  # type: ignore[return-value]
    return value


def printable(text: str) -> str:
    """Return text that a client or anybody else has chosen as a terminal may show it: on one line, without escapes."""
    return "".join(each if each.isprintable() else "?" for each in text)


def plain_value(value: object) -> object:
    """Return what msgspec does not encode, a subclass's value, as the plain type; raises TypeError for all else."""
    if isinstance(value, str | bytes):
        return plain(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"the type {type(value).__name__} cannot be encoded")


encoder: msgspec.msgpack.Encoder = msgspec.msgpack.Encoder(enc_hook=plain_value)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_worker_messages: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
_broadcasts = msgspec.msgpack.Decoder(Broadcast)
_scopes = msgspec.msgpack.Decoder(Scope)


def is_error(reply: LastReply) -> bool:
    """Whether an event ended with 5xx, 1011, or a response cut off; a job, whose reply is None, has no such end."""
    if isinstance(reply, Response):
        return reply.status >= 500 or reply.aborted
    return reply is not None and reply.close is not None and reply.close.code == INTERNAL_ERROR


def failed_turn(event: TurnEvent, status: int, reason: str = "", run_seconds: float = 0) -> Done:
    """Return what ends a turn in the stead of its reply: the socket closes with 1011, or a handshake is refused."""
    close = Close(INTERNAL_ERROR, reason, status)
    return Done(event.connection, event.number, [], b"", None, close, [], [], event.attempt, run_seconds=run_seconds)


def may_repeat(event: Event) -> bool:
    """Whether an event may run again when a worker died of it, or may have."""
    if isinstance(event, Request):
        return event.scope.method in SAFE_METHODS
    return not (isinstance(event, Receive) and event.at_most_once)


def encode(message: Wire) -> tuple[bytes, bytes]:
    """Return the field and the value of the stream entry that carries `message`."""
    return FIELD, encoder.encode(message)


def decode(decoder: msgspec.msgpack.Decoder[_T], field: bytes, value: bytes) -> _T:
    """Decode what such a decoder understands; raises WireError."""
    if field not in _KNOWN:
        raise VersionError(f"wire version {field!r:.60} is not adjacent to ours, {VERSION}: upgrade one step at a time")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of wire version {VERSION}: {error}") from error


def decode_event(field: bytes, value: bytes) -> Event:
    """Decode an entry of a channel's stream; raises WireError."""
    return decode(_events, field, value)


def decode_reply(field: bytes, value: bytes) -> Reply:
    """Decode an entry of an interface's reply stream; raises WireError."""
    return decode(_replies, field, value)


def decode_worker_message(field: bytes, value: bytes) -> WorkerMessage:
    """Decode an entry of a worker's inbox; raises WireError."""
    return decode(_worker_messages, field, value)


def decode_broadcast(field: bytes, value: bytes) -> Broadcast:
    """Decode an entry of the broadcast stream; raises WireError."""
    return decode(_broadcasts, field, value)


def encode_scope(scope: Scope) -> bytes:
    """Encode once what every turn of a connection carries."""
    return encoder.encode(scope)


@lru_cache(maxsize=256)  # each turn of a connection carries the same
def decode_scope(data: bytes) -> Scope:
    """Decode what encode_scope made; raises WireError."""
    return decode(_scopes, FIELD, data)
