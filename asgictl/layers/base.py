"""The contract of a channel layer, as the event loop of an interface or of an in-process server sees it."""

import os
import secrets
import socket
from collections.abc import Callable
from typing import Protocol

from asgictl.messages import Broadcast, Event, Letter, Reply

Position = tuple[int, int]  # a stream entry's id: Redis milliseconds, sequence
OnReply = Callable[[Reply, Position | None], None]
OnBroadcast = Callable[[Broadcast, Position], None]
Answered = Callable[[object], None]  # called with the entry's id, or with an exception when the layer failed


class GroupLayer(Protocol):
    """Carries broadcasts to every process that holds sockets."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def publish(self, broadcast: Broadcast) -> None:
        """Give the frame to every member; what one caller publishes arrives in order."""


class NotSent(ConnectionError):
    """The layer is away and nothing was sent: unlike after any other ConnectionError, nothing can have arrived."""


class EventLayer(GroupLayer, Protocol):
    """Carries an interface's events to workers, and their replies back to its callbacks.

    `answered` hears the layer's answer, or an exception, never before the call returns.
    """

    def append(self, channel: str, event: Event, answered: Answered) -> None:
        """Put an event onto a channel; answered with its entry."""

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        """Take an event from its channel; answered with 1, or 0 when a worker has it in hand already."""

    def post(self, inbox: str, letter: Letter, answered: Answered) -> None:
        """Send a letter to a worker; answered with its entry, or None when that worker is no more."""

    def depth(self, channel: str, answered: Answered) -> None:
        """Ask how many events stand in a channel."""

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Call gone() if the entry was lost: it stands no more in its channel, and no reply to it is on its way."""


def process_id() -> str:
    """Return an id for this process that is never used twice: host.pid.nonce."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
