"""The lifecycle of one WebSocket, without I/O.

A connection has at most one turn in flight; frames that arrive meanwhile wait in its inbox. That alone keeps its
frames in order whichever workers take them, with no lock anywhere. The interface holds the event until its turn is
done, so after any loss it knows what to send again.

    IDLE --TURN--> SENDING --ADDED--> SENT --DONE--> IDLE --END--> CLOSED
    SENDING --CUT--> SENDING      the link to Redis broke before XADD was answered: the same event is sent again,
                                  and the commit refuses a second run's output
    SENDING --DONE--> IDLE        the reply overtook XADD's answer
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from asgictl.configuration import Limits
from asgictl.errors import TransitionError
from asgictl.messages import Connect, Disconnect, Done, Frame, Receive, TurnEvent


class State(Enum):
    IDLE = auto()
    SENDING = auto()
    SENT = auto()
    CLOSED = auto()


class Trigger(Enum):
    TURN = auto()
    ADDED = auto()
    CUT = auto()
    DONE = auto()
    END = auto()


TRANSITIONS = {
    (State.IDLE, Trigger.TURN): State.SENDING,
    (State.SENDING, Trigger.ADDED): State.SENT,
    (State.SENDING, Trigger.CUT): State.SENDING,
    (State.SENDING, Trigger.DONE): State.IDLE,
    (State.SENT, Trigger.DONE): State.IDLE,
    (State.IDLE, Trigger.END): State.CLOSED,
}


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket's inbox, state and turn.

    id: names the connection everywhere; it begins with the id of its interface.
    scope: the encoded Scope. wants_disconnect: whether a consumer is to hear of the end; set once it is open.
    """

    id: str
    scope: bytes
    limits: Limits
    state: State = State.IDLE
    consumer_state: bytes = b""
    wants_disconnect: bool = False
    event: TurnEvent | None = None  # what is in flight
    inbox: deque[Frame] = field(default_factory=deque)
    inbox_bytes: int = 0
    number: int = 0  # of the last turn
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
        self.inbox_bytes = 0

    def next(self) -> TurnEvent | None:
        """Begin the next turn if there is one and none is in flight; returns its event, to be sent.

        Frames that came before the end run before the disconnect. Once nothing is left to run the state is CLOSED.
        """
        if self.state is not State.IDLE:
            return None
        if self.inbox:
            frames = [self.inbox.popleft() for _ in range(min(len(self.inbox), self.limits.turn_frames))]
            self.inbox_bytes -= sum(map(len, frames))
            self._transit(Trigger.TURN)
            self.number += 1
            self.event = Receive(self.id, self.number, 1, self.scope, self.consumer_state, frames)
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

    def added(self, number: int) -> None:
        """XADD answered for the turn of this number; a late answer is passed over."""
        if self.state is State.SENDING and number == self.number:
            self._transit(Trigger.ADDED)

    def cut(self) -> TurnEvent | None:
        """The link to Redis was lost and is back: returns the event to send again, if its fate is unknown."""
        if self.state is not State.SENDING:
            return None
        self._transit(Trigger.CUT)
        return self.event

    def done(self, reply: Done) -> bool:
        """The turn in flight is committed. False, and nothing changed, for a reply to any other turn."""
        if self.event is None or reply.number != self.number:
            return False
        self._transit(Trigger.DONE)
        self.event = None
        if reply.state:
            self.consumer_state = reply.state
        return True
