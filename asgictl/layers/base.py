"""The contract of a channel layer: what an event loop that holds connections sees of it, and what a worker sees.

On Redis, or in the memory of one process; tests/layers/test_contract.py holds both to it.
"""

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from asgictl.wire.manifest import Manifest
from asgictl.wire.messages import Broadcast, Event, Frames, LastReply, Reply, Response, Sent, Want, WorkerMessage
from asgictl.wire.naming import name_of

REFUSED_SECONDS = 10.0  # after which what Redis refuses is refused for good
Position = tuple[int, int]  # a stream entry's id: Redis milliseconds, sequence
OnReply = Callable[[Reply, Position | None], None]
OnBroadcast = Callable[[Broadcast, Position], None]
Reject = Callable[[str], None]  # called with why something is dropped, in a fixed word, to count it
Answered = Callable[[object], None]  # called with the entry's id, or with an exception when the layer failed


def ignored(*_: object) -> None:
    """Hear what nobody needs: the answer to a command whose failure shows elsewhere, as in a lost connection."""


def own_channel(channel: str, home: str) -> str:
    """Return the name of a worker's own channel: of those events of `channel` that no other worker is to have.

    home: the inbox of the worker's event loop.
    """
    return f"{channel}@{home}"


class OnItsWay(Protocol):
    """What is being sent. size: in bytes."""

    @property
    def size(self) -> int: ...

    def withdraw(self) -> None:
        """Send it no more, unless it is on its way already: that answer is heard."""


class NotSent(ConnectionError):
    """The layer is away and nothing was sent: unlike after any other ConnectionError, nothing can have arrived."""


class EventLayer(Protocol):
    """Carries an interface's events to workers, their replies back to its callbacks, and broadcasts to its members.

    `answered` hears the layer's answer, or an exception, never before the call returns. manifest: the encoded manifest
    of the newest ready release, None until there was one.
    """

    @property
    def manifest(self) -> bytes | None: ...

    @property
    def identities(self) -> Sequence[str]:
        """What connections' ids begin with: of requests and ASGI sockets the first, of other sockets the last."""

    @property
    def silent_seconds(self) -> float:
        """How long ago the layer last answered, which it does each second."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def publish(self, sent: Sent) -> None:
        """Give a frame to every member, in the order of the calls; or a job to its channel, once Redis is there."""

    async def deregister(self) -> None:
        """Every connection has had its last turn: leave nothing behind."""

    def append(
        self, channel: str, event: Event, answered: Answered, *, repeatable: bool, is_own: bool = False
    ) -> OnItsWay:
        """Put an event onto a channel, once the layer is there; answered with its entry.

        repeatable: put it there again when nobody knows whether it was; else it is answered with a ConnectionError.
        is_own: the channel is a worker's own. Answered with None, or an error, unless that worker takes new events.
        """

    def homes(self, channel: str) -> tuple[str, ...]:
        """Return the workers that take new events of their own channels beside this one, as far as is known."""

    def find_homes(self, found: Callable[[], None]) -> None:
        """Ask which workers take new events of their own channels, as the layer does each second; then call found()."""

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        """Take an event from its channel; answered with 1, or 0 when it is pending for a worker already."""

    def post(self, inbox: str, message: WorkerMessage, answered: Answered) -> None:
        """Send a message to a worker; answered with its entry, or None when that worker is no more."""

    def forget(self, connection: str) -> None:
        """A connection is over: keep nothing of it."""

    def depth(self, channel: str, answered: Answered) -> None:
        """Ask how many events stand in a channel, and in the workers' own channels beside it."""

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Call gone() if the entry was lost: it stands no more in its channel, and no reply to it is on its way."""

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        """Keep an event that was given up, for somebody to look at."""


class Entry(NamedTuple):
    """An event that a worker has read and not acknowledged."""

    stream: bytes
    id: bytes
    event: Event

    def __str__(self) -> str:
        return f"{name_of(self.event)} (event {self.id.decode()})"


class WorkerLayer(Protocol):
    """One thread of a worker: competes for events, and commits what they produce. Blocking; only flush() is for others.

    inbox: where messages to this thread go. client_id: of what ends a read that waits, 0 where nothing does.
    refused: commits that came too late.
    """

    inbox: str
    client_id: int
    refused: int

    @property
    def settled(self) -> bool:
        """Whether every commit has been answered."""

    def publish_manifest(self, manifest: Manifest) -> None:
        """Tell interfaces what this release serves."""

    def read(self, count: int) -> list[Entry]:
        """Send buffered commits, then wait up to a second for at most `count` events of each channel."""

    def commit(self, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes = b"") -> None:
        """Acknowledge an event and send all that it produced, together; with the next read or flush(), or now.

        Refused when others have the event, or it is a turn that is not newer than the connection's last.
        reply: None for a job. last_will: the disconnect event to run should the interface die, b"" when it has not
        changed.
        """

    def send_now(self, sent: Frames | Sent) -> None:
        """Send something outside of the commit; twice, perhaps, over a cut. Raises as mail() does."""

    def mail(self, reply: Want | Response | None, wait_seconds: float = 0) -> tuple[bool, list[WorkerMessage]]:
        """Send something ahead of the commit, and return whether its interface lives and which messages have come.

        Waits for the first message as long as is said. Insists while the layer is away, so it may come twice; raises
        ConnectionResetError when it stays away.
        """

    def release(self, entries: list[Entry]) -> None:
        """Let other workers run events that were read and have not started, now."""

    def pass_over(self, stream: bytes, entry_id: bytes, error: Exception | None = None) -> None:
        """Acknowledge an event that cannot be run, and count it; error: why."""

    def end_silence(self) -> None:
        """Cut a connection that has owed an answer for too long. By another thread, which the layer answers."""

    def settle(self) -> None:
        """Send what was buffered and wait for the answers."""

    def flush(self) -> None:
        """Send what was buffered. From any thread."""

    def close(self) -> None:
        """Send what was buffered, and leave."""


def process_id() -> str:
    """Return an id for this process that is never used twice: host.pid.nonce."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
