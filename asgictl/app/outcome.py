"""The effects of one event, buffered until its commit, which sends all of them together."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from asgictl.config import CHANNEL_BYTES, CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, ConsumerError
from asgictl.wire.messages import Accept, Broadcast, Close, Frame, Frames, Headers, Sent, plain
from asgictl.wire.state import encode_state

SendNow = Callable[[Frames | Sent], object]
_current: ContextVar["Outcome"] = ContextVar("asgictl_outcome")


def frame_of(text: str | None, data: bytes | None) -> Frame:
    """Return the frame given as text= or data=; raises ConsumerError for neither or both."""
    if (text is None) == (data is None):
        raise ConsumerError("give exactly one of text= and data=")
    frame = data if text is None else text
    if not isinstance(frame, bytes if text is None else str):
        raise ConsumerError(f"text= takes str and data= takes bytes, not {type(frame).__name__}")
    return encodable(frame) if isinstance(frame, str) else plain(frame)


def encodable(text: str) -> str:
    """Return text as a plain str; raises ConsumerError when UTF-8 cannot carry it, here where it has a culprit."""
    if type(text) is str and text.isascii():
        return text
    text = plain(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConsumerError(f"text that cannot be encoded as UTF-8: {error}") from None
    return text


def encoded(what: str, content: dict[str, Any], most_bytes: int, known: bytes = b"") -> bytes:
    """Encode a dict that travels. what: it is, for errors. known: as encode_state has it.

    Raises ConsumerError for a value that MessagePack cannot carry, and for more than `most_bytes`.
    """
    try:
        data = encode_state(content, known)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConsumerError(f"{what} cannot be encoded as MessagePack: {error}") from error
    if len(data) > most_bytes:
        raise ConsumerError(f"{what} is {len(data)} bytes when encoded; the limit is {most_bytes}")
    return data


class Depths(dict[str, int]):
    """How many messages wait in each background channel, and how many `bytes` they take in Redis.

    As this process knew it up to a second ago, and what its handlers have sent since.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(channels, 0))
        self.bytes: dict[str, int] = dict(self)

    def add(self, channel: str, size: int) -> None:
        """Count a message of so many bytes that is sent; raises ChannelFull."""
        if self[channel] >= CHANNEL_CAPACITY:
            raise ChannelFull(channel, f"{CHANNEL_CAPACITY} messages")
        if self.bytes[channel] + size > CHANNEL_BYTES:
            raise ChannelFull(channel, f"{CHANNEL_BYTES >> 20} MiB")
        self[channel] += 1
        self.bytes[channel] += size


@dataclass(slots=True)
class Outcome:
    """The effects that an event's handler asked for. Handlers fill it; the worker commits it.

    now: sends something outside of the commit, at once; a handler that runs again sends it again.
    depths: of the application's background channels; None when nobody knows. headers: of the event.
    """

    now: SendNow | None = None
    depths: Depths | None = None
    headers: Headers = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    accept: Accept | None = None
    close: Close | None = None
    memberships: list[tuple[str, bool]] = field(default_factory=list)  # each call: its group, whether it was a join
    sends: list[Sent] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)  # for each of them, how many joins and leaves came before it
    is_over: bool = False  # for a task that outlives its handler, and has its context
    _token: Token["Outcome"] | None = None

    def send(self, sent: Sent) -> None:
        """Add a message to the commit."""
        self.sends.append(sent)
        self.moved.append(len(self.memberships))

    def drop(self) -> None:
        """Remove all messages from the commit."""
        self.sends.clear()
        self.moved.clear()

    def send_now(self, sent: Frames | Sent) -> None:
        """Send a message before the commit. Raises ConnectionResetError if Redis stays unavailable."""
        if self.now is None:
            raise ConsumerError("immediately=True works in a consumer or a view that asgictl runs")
        self.now(sent)

    def groups(self, *, joined: bool) -> list[str]:
        """Return the groups that the connection joins, or leaves; the last call for each group counts."""
        if not self.memberships:
            return []
        last = dict(self.memberships)
        return [group for group, is_join in self.memberships if is_join is joined and last[group] is joined]

    def own_copies(self, connection: str) -> list[tuple[str, Frame]]:
        """See that a connection that joins or leaves groups gets what was sent to them while it was a member.

        A commit changes memberships before it sends, so whoever ends as a member gets everything, and else nothing.
        Only the interface knows who was a member before: it has a copy of such frames if so, and these are returned.
        """
        last, own = dict(self.memberships), []
        for number, (sent, moved) in enumerate(zip(self.sends, self.moved, strict=True)):
            if not isinstance(sent, Broadcast) or sent.group not in last:
                continue
            is_member = dict(self.memberships[:moved]).get(sent.group)
            if is_member is None:
                own.append((sent.group, sent.frame))
            elif is_member and not last[sent.group]:
                self.frames.append(sent.frame)
            if last[sent.group] and not is_member:
                self.sends[number] = replace(sent, but=connection)
        return own

    def sent_with(self, status: int, *, cut_off: bool) -> list[Sent]:
        """Return what leaves with a response: nothing of a view that raised, took too long, or was cut off."""
        return [] if cut_off or status in {500, 504} else self.sends

    def __enter__(self) -> None:
        """Collect here what this thread or task sends to groups and channels."""
        self._token = _current.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None  # noqa: S101 - __enter__ has set it
        _current.reset(self._token)
        self.is_over = True


def current() -> Outcome | None:
    """Return the outcome of the event being handled, or None outside of one."""
    outcome = _current.get(None)
    return None if outcome is None or outcome.is_over else outcome
