"""What one end of a socket sends the other through the layer: in order and once, under credit.

The layer sends again what was not answered, so what arrives is a sequence of which parts may be repeated, and nothing
is ever missing from it; should something be, Redis has lost it, and the socket has to end.
"""

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from asgictl.layers.base import Answered
from asgictl.wire.messages import Frame

logger = logging.getLogger("asgictl.layers")
FRAME_BYTES = 64  # that a frame counts for beside its own, so that empty ones count too
Message = TypeVar("Message")


def weight(frame: Frame) -> int:
    """Return what a frame counts for in what may be on its way; both ends count alike."""
    return len(frame) + FRAME_BYTES


class Credit:
    """What one end may send ahead of the other, in bytes: the last message may exceed it, then it waits for more."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left: int = size

    @property
    def is_spent(self) -> bool:
        """Whether nothing may follow now."""
        return self.left <= 0

    def spend(self, size: int) -> None:
        """So much is sent."""
        self.left -= size

    def grant(self, size: int) -> None:
        """The other end has taken so much."""
        self.left += size


class Window:
    """The other end of a Credit: how much of it can be granted again, once that is worth a message.

    size: bytes that may be on their way. share: of it, as its divisor, that is worth a message. is_granted: whether the
    other end has its first credit already.
    """

    __slots__ = ("_due", "_least")

    def __init__(self, size: int, share: int, *, is_granted: bool) -> None:
        self._due = 0 if is_granted else size
        self._least = size // share

    def take(self, size: int) -> None:
        """So much has been taken: written to the client, or handed to the application."""
        self._due += size

    def due(self) -> int:
        """Return what is to be granted now; 0 when that is worth no message yet."""
        if self._due < self._least:
            return 0
        due, self._due = self._due, 0
        return due


class OrderedSender(Generic[Message]):
    """Numbers what it sends, and knows what has arrived.

    add: sends a message to the other end; answered not before it returns. lost: called once, when that end is no more.
    Messages carry the sequence that follows from next_sequence(), by which the other end drops what comes twice.
    """

    def __init__(self, add: Callable[[Message, Answered], object], lost: Callable[[], None]) -> None:
        self._add = add
        self._lost = lost
        self._sequence = 0
        self._unanswered = 0
        self._is_over = False
        self._settled: asyncio.Future[None] | None = None

    def next_sequence(self) -> int:
        """Number the next message."""
        self._sequence += 1
        return self._sequence

    def send(self, message: Message) -> None:
        """Send a message behind all that were sent before."""
        if self._is_over:
            return
        self._unanswered += 1
        try:
            self._add(message, self._answered)
        except Exception:  # what cannot be added now never can be, and its number is missing from the sequence
            logger.exception("could not send a message of an ordered sender; its socket is closed")
            asyncio.get_running_loop().call_soon(self._answered, None)

    async def settle(self) -> None:
        """Wait until the layer has all that was sent, or the other end is no more."""
        while self._unanswered and not self._is_over:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    def _answered(self, reply: object) -> None:
        if self._is_over:
            return
        self._unanswered -= 1
        if reply is None or isinstance(reply, Exception):
            if reply is not None:
                logger.error("Redis rejected a message of an ordered sender; its socket is closed: %s", reply)
            self._is_over = True
            self._lost()
        if self._settled and not self._settled.done() and (self._is_over or not self._unanswered):
            self._settled.set_result(None)


class OrderedReceiver:
    """The other end: passes each message on once. lost: called once, when one is missing that the layer had."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._last: float = 0

    def is_next(self, sequence: int) -> bool:
        """Whether a message is the next one; neither one that came before is, nor what follows a missing one."""
        if sequence == self._last + 1:
            self._last = sequence
            return True
        if sequence > self._last:
            self._last = inf
            self._lost()
        return False
