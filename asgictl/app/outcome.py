"""All that one event produces, buffered until its commit: nothing leaves before, everything leaves together."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from asgictl.config import CHANNEL_BYTES, CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, ConsumerError
from asgictl.wire.messages import Accept, Close, Frame, Frames, Sent, plain

SendNow = Callable[[Frames | Sent], object]
_current: ContextVar["Outcome"] = ContextVar("asgictl_outcome")


def frame_of(text: str | None, data: bytes | None) -> Frame:
    """Return the one frame that text= or data= asks for; raises ConsumerError for neither or both."""
    if (text is None) == (data is None):
        raise ConsumerError("give either text= or data=, not both and not neither")
    frame = data if text is None else text
    if not isinstance(frame, bytes if text is None else str):
        raise ConsumerError(f"text= takes str and data= takes bytes, not {type(frame).__name__}")
    return encodable(frame) if isinstance(frame, str) else plain(frame)


def encodable(text: str) -> str:
    """Return text as a plain str; raises ConsumerError when UTF-8 cannot carry it, here where it has a culprit."""
    text = plain(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConsumerError(f"text that UTF-8 cannot carry: {error}") from None
    return text


class Depths(dict[str, int]):
    """How many messages wait in each background channel, and how many `bytes` they take in Redis.

    As this process knew it up to a second ago, and what its handlers have sent since.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(channels, 0))
        self.bytes = dict(self)

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
    """What an event's handler asked for. Handlers fill it; the worker commits it.

    now: sends something outside of the commit, at once; a handler that runs again sends it again.
    depths: of the application's background channels; None when nobody knows.
    """

    now: SendNow | None = None
    depths: Depths | None = None
    frames: list[Frame] = field(default_factory=list)
    accept: Accept | None = None
    close: Close | None = None
    memberships: list[tuple[str, bool]] = field(default_factory=list)  # each call: its group, whether it was a join
    sends: list[Sent] = field(default_factory=list)
    is_over: bool = False  # for a task that outlives its handler, and has its context
    _token: Token["Outcome"] | None = None

    def send_now(self, sent: Frames | Sent) -> None:
        """Send at once what cannot wait for the commit. Raises ConnectionResetError when Redis stays away."""
        if self.now is None:
            raise ConsumerError("immediately=True works in a consumer or a view that asgictl runs")
        self.now(sent)

    def groups(self, *, joined: bool) -> list[str]:
        """Return the groups that the connection joins, or those that it leaves: for each the last call counts."""
        last = dict(self.memberships)
        return [group for group, is_join in self.memberships if is_join is joined and last[group] is joined]

    def sent_with(self, status: int, *, cut_off: bool) -> list[Sent]:
        """Return what leaves with a response: nothing of a view that raised, took too long, or was cut off."""
        return [] if cut_off or status in {500, 504} else self.sends

    def __enter__(self) -> None:
        """From here on what this thread or task sends to groups and channels lands here."""
        self._token = _current.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None  # noqa: S101 - __enter__ has set it
        _current.reset(self._token)
        self.is_over = True


def current() -> Outcome | None:
    """Return the outcome of the event being handled, or None outside of one."""
    outcome = _current.get(None)
    return None if outcome is None or outcome.is_over else outcome
