"""What one end of a socket sends the other through Redis: in order and, while Redis keeps what it has, once.

What Redis did not answer is sent again, from the oldest on, so what arrives is a sequence of which parts may be
repeated, and nothing is ever missing from it; should something be, Redis has lost it, and the socket has to end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Generic, TypeVar

from asgictl.layers.base import Answered
from asgictl.wire.messages import Frame

logger = logging.getLogger("asgictl.layers")
RESEND_SECONDS = 0.2
FRAME_BYTES = 64  # that a frame counts for beside its own, so that empty ones count too
Message = TypeVar("Message")


def weight(frame: Frame) -> int:
    """Return what a frame counts for in what may be on its way; both ends count alike."""
    return len(frame) + FRAME_BYTES


class OrderedSender(Generic[Message]):
    """Keeps a message until Redis has it; after a cut all that was not answered is sent again.

    add: sends a message to the other end; answered not before it returns. lost: called once, when that end is no more.
    Messages carry the sequence that follows from next_sequence(), by which the other end drops what comes twice.
    """

    def __init__(self, add: Callable[[Message, Answered], None], lost: Callable[[], None]) -> None:
        self._add = add
        self._lost = lost
        self._sequence = 0
        self._unsent: deque[Message] = deque()
        self._unanswered: deque[Message] = deque()
        self._round = 0  # one more after each failure: what is still answered of an earlier one says nothing any more
        self._timer: asyncio.Handle | None = None
        self._is_over = False
        self._settled: asyncio.Future[None] | None = None

    def next_sequence(self) -> int:
        """Number the next message."""
        self._sequence += 1
        return self._sequence

    def send(self, message: Message) -> None:
        """Send a message after all that were sent before, once the event loop comes to it.

        Later, because what an absent Redis refuses is refused later too: nothing may be sent before that is known.
        """
        if not self._is_over:
            self._unsent.append(message)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_soon(self._send)

    async def settle(self) -> None:
        """Wait until Redis has all that was sent, or the other end is no more."""
        while self._unsent or self._unanswered:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    def _send(self) -> None:
        self._timer = None
        while self._unsent:
            message = self._unsent.popleft()
            self._unanswered.append(message)
            try:
                self._add(message, partial(self._answered, self._round))
            except Exception:  # what cannot be added now never can be, and its number is missing from the sequence
                logger.exception("a message of an ordered sender could not be sent; its socket ends")
                self._answered(self._round, None)

    def _answered(self, round: int, reply: object) -> None:
        if round != self._round:
            return
        if isinstance(reply, Exception):
            self._round += 1
            self._unsent.extendleft(reversed(self._unanswered))
            self._unanswered.clear()
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(RESEND_SECONDS, self._send)
            return
        if reply is None:
            self._is_over = True
            self._round += 1
            self._unsent.clear()
            self._unanswered.clear()
            self._lost()
        else:
            self._unanswered.popleft()
        if self._settled and not (self._unsent or self._unanswered or self._settled.done()):
            self._settled.set_result(None)


class OrderedReceiver:
    """The other end: passes each message on once. lost: called once, when one is missing that Redis had."""

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
