"""What one end of a socket sends the other through Redis: in order and, while Redis keeps what it has, once."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from asgictl.layers.base import Answered

RESEND_SECONDS = 0.2
Message = TypeVar("Message")


class Lane(Generic[Message]):
    """Keeps a message until Redis has it; after a cut all that was not answered is sent again.

    add: sends a message to the other end. lost: called once, when the other end is no more.
    Messages carry the sequence that follows from next_sequence(), by which the other end drops what comes twice.
    """

    def __init__(self, add: Callable[[Message, Answered], None], lost: Callable[[], None]) -> None:
        self._add = add
        self._lost = lost
        self._sequence = 0
        self._unanswered: deque[Message] = deque()
        self._is_resending = False
        self._is_over = False

    def next_sequence(self) -> int:
        """Number the next message."""
        self._sequence += 1
        return self._sequence

    def send(self, message: Message) -> None:
        """Send a message after all that were sent before."""
        self._unanswered.append(message)
        if not self._is_resending and not self._is_over:
            self._add(message, self._answered)

    def _answered(self, reply: object) -> None:
        if self._is_over:
            return
        if isinstance(reply, Exception):
            if not self._is_resending:
                self._is_resending = True
                asyncio.get_running_loop().call_later(RESEND_SECONDS, self._resend)
        elif reply is None:
            self._is_over = True
            self._lost()
        else:
            self._unanswered.popleft()

    def _resend(self) -> None:
        self._is_resending = False
        for message in self._unanswered:
            self._add(message, self._answered)


class Sequence:
    """The other end: passes each message on once."""

    def __init__(self) -> None:
        self._last = 0

    def is_next(self, sequence: int) -> bool:
        """Whether a message is new; one that came before is not."""
        if sequence <= self._last:
            return False
        self._last = sequence
        return True
