"""The bytes of one request, both ways, under credit: what is on its way never exceeds a window.

Used by the thread that runs the request, which waits here for the client: for its body to come, or for it to take the
response. What it sends ahead of its commit is answered before it goes on, so parts cannot overtake one another.
"""

from collections import deque
from collections.abc import Callable
from functools import cached_property
from time import monotonic

from asgictl.layers import flow_control
from asgictl.layers.base import Entry, WorkerLayer
from asgictl.layers.flow_control import OrderedReceiver
from asgictl.wire.messages import WINDOW_BYTES, Chunk, Credit, Request, Response, Want
from asgictl.worker.response import ClientDisconnected

STALL_SECONDS = 60.0  # without a byte in the direction that is waited for
WAIT_SECONDS = 1.0  # a blocking read ends after that, to look at the time


class LayerFlow:
    """The bytes of one request, both ways, for the thread that runs it.

    entry and inbox: what the response's parts are to carry. progressed: called whenever the handler has waited for its
    client, for those who watch how long the handler itself takes.
    """

    def __init__(self, entry: Entry, event: Request, layer: WorkerLayer, progressed: Callable[[], None]) -> None:
        self.event = event
        self.entry: bytes = entry.id
        self.inbox: str = layer.inbox
        self._layer = layer
        self._progressed = progressed
        self._credit = flow_control.Credit(event.credit)
        self._wants = 0
        self._has_ended = not event.more

    # Most requests need nothing of this.
    @cached_property
    def _window(self) -> flow_control.Window:
        return flow_control.Window(WINDOW_BYTES, 2, is_granted=False)  # of the request's body

    @cached_property
    def _heard(self) -> OrderedReceiver:
        return OrderedReceiver(self._miss)

    @cached_property
    def _chunks(self) -> deque[bytes]:
        return deque()

    @property
    def credit(self) -> int:
        """How many bytes of the response's body may be sent now."""
        return self._credit.left

    def pull(self) -> bytes:
        """Return the next bytes of the request's body, b"" at its end.

        Raises ClientDisconnected, and TimeoutError when none came for STALL_SECONDS.
        """
        stalled_at = monotonic() + STALL_SECONDS
        while not self._chunks and not self._has_ended:
            want = None
            if due := self._window.due():
                event = self.event
                self._wants += 1
                want = Want(event.connection, event.attempt, self.entry, self.inbox, due, self._wants)
            self._exchange(want, WAIT_SECONDS)
            if monotonic() > stalled_at:
                raise TimeoutError(f"the client sent nothing of its body for {STALL_SECONDS:.0f} s")
        self._progressed()
        return self._chunks.popleft() if self._chunks else b""

    def push(self, part: Response) -> None:
        """Send a part that is not the last, and wait until another may follow.

        Raises ClientDisconnected, and TimeoutError when the client took nothing for STALL_SECONDS.
        """
        self._credit.spend(len(part.body))
        self._exchange(part, 0)
        stalled_at, before = monotonic() + STALL_SECONDS, self.credit
        while self._credit.is_spent:
            self._exchange(None, WAIT_SECONDS)
            if self.credit > before:
                stalled_at, before = monotonic() + STALL_SECONDS, self.credit
            elif monotonic() > stalled_at:
                raise TimeoutError(f"the client took nothing of the response for {STALL_SECONDS:.0f} s")

    def _exchange(self, reply: Want | Response | None, wait_seconds: float) -> None:
        is_heard, messages = self._layer.mail(reply, wait_seconds)
        self._progressed()
        if not is_heard:
            raise ClientDisconnected("the interface that held this request is gone")
        for message in messages:
            if (message.connection, message.entry) != (self.event.connection, self.entry):
                continue  # of a request that is over
            if not isinstance(message, (Chunk, Credit)):
                raise ClientDisconnected("the client has gone")
            if not self._heard.is_next(message.sequence):
                continue  # sent again after a cut
            if isinstance(message, Credit):
                self._credit.grant(message.size)
            else:
                self._window.take(len(message.data))
                self._has_ended = not message.more
                if message.data:
                    self._chunks.append(message.data)

    def _miss(self) -> None:
        raise ConnectionResetError("a message of the interface about this request was lost")
