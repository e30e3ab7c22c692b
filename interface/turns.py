"""The lifecycle of one WebSocket, without I/O.

A connection has at most one turn in flight; frames that arrive meanwhile wait in its inbox. That alone keeps its
frames in order whichever workers take them, with no lock anywhere. The interface holds the event until its turn is
done, so after any loss it knows what to send again.

    IDLE --TURN--> OPEN --DONE--> IDLE --END--> CLOSED
    OPEN --LOST--> OPEN      its worker died: the same turn is sent again, and the commit refuses a second output
    OPEN --SPENT--> IDLE     its workers died too often: the turn is given up

After a death the frames of its turn go one by one, so that one frame that kills workers does not take others along.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum, auto

from msgspec.structs import replace

from asgictl.config import Limits
from asgictl.errors import TransitionError
from asgictl.wire.messages import Connect, Disconnect, Done, Frame, Receive, TurnEvent


class State(IntEnum):  # whose hash is C
    IDLE = auto()
    OPEN = auto()
    CLOSED = auto()


class Trigger(IntEnum):
    TURN = auto()
    DONE = auto()
    LOST = auto()
    SPENT = auto()
    END = auto()


TRANSITIONS = {
    (State.IDLE, Trigger.TURN): State.OPEN,
    (State.OPEN, Trigger.DONE): State.IDLE,
    (State.OPEN, Trigger.LOST): State.OPEN,
    (State.OPEN, Trigger.SPENT): State.IDLE,
    (State.IDLE, Trigger.END): State.CLOSED,
}


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket's inbox, state and turn.

    id: names the connection everywhere; it begins with the id of its interface.
    scope: the encoded Scope. wants_disconnect: whether a consumer is to hear of the end; set once it is open.
    at_most_once: a turn whose worker died is given up; so that one frame at a time is lost, they go one by one.
    """

    id: str
    scope: bytes
    limits: Limits
    at_most_once: bool = False
    state: State = State.IDLE
    consumer_state: bytes = b""
    wants_disconnect: bool = False
    event: TurnEvent | None = None  # what is in flight
    inbox: deque[Frame] = field(default_factory=deque)
    inbox_bytes: int = 0
    number: int = 0  # of the last turn
    received: int = 0  # frames that went into turns
    suspects: int = 0  # frames at the head of the inbox that were pending for a worker when it died
    leaving: tuple[int, str] | None = None  # the close code and reason

    def _transit(self, trigger: Trigger) -> None:
        try:
            self.state = TRANSITIONS[self.state, trigger]
        except KeyError:
            raise TransitionError(f"connection {self.id}: {trigger.name} in state {self.state.name}") from None

    @property
    def full(self) -> bool:
        """Whether the inbox is at its capacity, so that the socket must not be read."""
        return len(self.inbox) >= self.limits.inbox_frames or self.inbox_bytes >= self.limits.inbox_bytes

    def connect(self) -> Connect:
        """Begin the first turn; returns its event, to be sent."""
        self._transit(Trigger.TURN)
        self.number += 1
        event = Connect(self.id, self.number, 1, self.scope, b"")
        self.event = event
        return event

    def receive(self, frame: Frame) -> None:
        """Put a frame that the client sent into the inbox; call next() after."""
        self.inbox.append(frame)
        self.inbox_bytes += len(frame)

    def leave(self, code: int, reason: str) -> None:
        """The socket has ended, for whatever reason; call next() after. Only the first call counts."""
        self.leaving = self.leaving or (code, reason)

    def discard(self) -> None:
        """Forget the frames that no consumer will see, since one of them closed the connection."""
        self.inbox.clear()
        self.inbox_bytes = self.suspects = 0

    def next(self) -> TurnEvent | None:
        """Begin the next turn if there is one and none is in flight; returns its event, to be sent.

        Frames that came before the end run before the disconnect. Once nothing is left to run the state is CLOSED.
        """
        if self.state is not State.IDLE:
            return None
        if self.inbox:
            attempt, most = (2, 1) if self.suspects else (1, 1 if self.at_most_once else self.limits.turn_frames)
            self.suspects = max(self.suspects - 1, 0)
            frames = [self.inbox.popleft() for _ in range(min(len(self.inbox), most))]
            self.inbox_bytes -= sum(map(len, frames))
            self._transit(Trigger.TURN)
            self.number += 1
            state = self.consumer_state
            self.event = Receive(
                *(self.id, self.number, attempt, self.scope, state, frames, self.received, self.at_most_once)
            )
            self.received += len(frames)
        elif self.leaving is None:
            return None
        elif self.wants_disconnect:
            self.wants_disconnect = False
            self._transit(Trigger.TURN)
            self.number += 1
            self.event = Disconnect(self.id, self.number, 1, self.scope, self.consumer_state, *self.leaving)
        else:
            self._transit(Trigger.END)
        return self.event

    def lost(self, started: bool) -> TurnEvent | None:
        """The worker of the turn in flight died; returns what to send again, None once attempts are spent."""
        event = self.event
        if event is None:
            raise TransitionError(f"connection {self.id}: LOST in state {self.state.name}")
        attempt = event.attempt + started
        if attempt > (1 if self.at_most_once else self.limits.attempts):
            self._transit(Trigger.SPENT)
            self.event = None
            return None
        self._transit(Trigger.LOST)
        if isinstance(event, Receive) and attempt > 1:
            self.inbox.extendleft(reversed(event.frames[1:]))
            self.inbox_bytes += sum(map(len, event.frames[1:]))
            self.suspects += len(event.frames) - 1
            self.received = event.first + 1
            self.event = replace(event, attempt=attempt, frames=event.frames[:1])
        else:
            self.event = replace(event, attempt=attempt)
        return self.event

    def done(self, reply: Done) -> bool:
        """The turn in flight is committed. False, and nothing changed, for a reply to any other turn."""
        if self.event is None or reply.number != self.number:
            return False
        self._transit(Trigger.DONE)
        if reply.attempt == 1 and self.event.attempt > 1:
            # A second sending of the turn had not been lost: all of its frames are done, not only the first.
            for _ in range(self.suspects):
                self.inbox_bytes -= len(self.inbox.popleft())
            self.received += self.suspects
            self.suspects = 0
        self.event = None
        if reply.state:
            self.consumer_state = reply.state
        return True
