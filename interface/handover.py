"""The hand-over of an identity's sockets from an old interface process to a new one, without I/O.

All connections of one process carry its identity, the first part of their ids. It names their reply stream, last
wills and lease, so it moves as a whole, though its sockets move one by one:

    old                                        new
    Offer ───────────────────────────────────▶ reads the reply stream from the old one's position, renews the lease
    accepts nothing, begins no turns ◀──────── Following
    of each socket between two turns:
    Record, with its descriptor ─────────────▶ keeps it, untouched
    forgets it ◀────────────────────────────── Taken (Refused: the old one goes on with it)
    Yours ───────────────────────────────────▶ serves it
    NoneLeft ────────────────────────────────▶ trims the reply stream from now on

Each socket has one owner in every step. Before Yours is sent that is the old process; behind it, the new one. While
it lives, the old process closes a line with a record on its way at no price: so the end of the line means that it is
dead, and the new one owns each record that has come whole. The new one's death leaves to the old one what it has not
given away. Whoever survives reaps the identity's connections that it does not hold, once it has taken what it can; the
controller reaps an identity only for the process that claims it, which is neither while both live. Where both die,
the lease lapses.

    old    OFFERED ──▶ MOVING ──▶ GIVEN                    new    IDLE ──▶ PREPARING ──▶ TAKING ──▶ SOLE
              │           ├─ late ─▶ CLOSING ──▶ GIVEN               └────────┴── or ─────┴──▶ OVER
              └───────────┴─────────────┴─▶ KEPT

The caller carries out what a call returns, in its order, and gives each event that it hears at once. tests/interface/
test_handover_model.py drives both ends through all orders of messages, turns and deaths.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import NamedTuple

from asgictl.errors import TransitionError
from asgictl.wire.handover import (
    NOTHING,
    VERSION,
    Declined,
    Fenced,
    Following,
    FromNew,
    FromOld,
    NoneLeft,
    Offer,
    Position,
    Record,
    Refused,
    Taken,
    Withdrawn,
    Yours,
)

MOST_ON_THEIR_WAY = 64  # records that were sent and not answered
HANDOVER_SECONDS = 60.0  # after which late() is to be called, less those in which either had no Redis


class Action(IntEnum):
    """What is to be done with an identity as a whole."""

    KEEP_REPLIES = auto()  # trim its reply stream no more: the other one reads it too
    TRIM_REPLIES = auto()  # trim it again, once every socket that was begun has been given what it missed of it
    FOLLOW = auto()  # read its reply stream from the offer's position, renew its lease; call followed() once both are
    UNFOLLOW = auto()  # do neither any more
    QUIESCE = auto()  # accept nothing; begin turns only of connections that are leaving; call quiet() of each other
    DISCLAIM = auto()  # tell the controller that this process's death is not the identity's
    CLAIM = auto()  # tell it that it is
    CLOSE = auto()  # close each socket that is held with 1012; their last turns run
    REAP = auto()  # run the last wills of the identity's connections that are not held
    DROP = auto()  # the identity is lost: close its sockets, and run nothing of them


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message, with nothing beside it."""

    message: FromOld | FromNew


@dataclass(frozen=True, slots=True)
class Transfer:
    """Send a suspended socket's Record with its descriptor."""

    connection: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a suspended socket."""

    connection: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Let go of a suspended socket and its connection, so that neither client nor application notices."""

    connection: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Serve a socket by its record."""

    connection: str


Gap = tuple[Position, Position]
Do = Action | Send | Transfer | Resume | Forget | Begin


class Old(IntEnum):
    OFFERED = auto()
    MOVING = auto()
    CLOSING = auto()  # too late: what is left ends here
    GIVEN = auto()
    KEPT = auto()  # nobody takes what is left
    LOST = auto()  # others have taken the identity


class New(IntEnum):
    IDLE = auto()
    PREPARING = auto()
    TAKING = auto()
    SOLE = auto()  # the identity is this process's alone
    OVER = auto()  # this process has nothing of it


class Event(IntEnum):
    OFFER = auto()
    FOLLOWING = auto()
    DECLINE = auto()
    LATE = auto()
    EMPTY = auto()
    CUT = auto()
    FENCED = auto()


OLD = {
    (Old.OFFERED, Event.FOLLOWING): Old.MOVING,
    (Old.OFFERED, Event.DECLINE): Old.KEPT,
    (Old.OFFERED, Event.LATE): Old.KEPT,
    (Old.OFFERED, Event.CUT): Old.KEPT,
    (Old.MOVING, Event.LATE): Old.CLOSING,
    (Old.MOVING, Event.EMPTY): Old.GIVEN,
    (Old.MOVING, Event.CUT): Old.KEPT,
    (Old.CLOSING, Event.EMPTY): Old.GIVEN,
    (Old.CLOSING, Event.CUT): Old.KEPT,
    **{(state, Event.FENCED): Old.LOST for state in (Old.OFFERED, Old.MOVING, Old.CLOSING, Old.KEPT)},
    # What crosses on its way, or comes when all is over.
    **{(Old.KEPT, event): Old.KEPT for event in (Event.FOLLOWING, Event.DECLINE, Event.LATE, Event.CUT)},
    **{(Old.GIVEN, event): Old.GIVEN for event in (Event.LATE, Event.CUT, Event.FENCED)},
    **{(Old.LOST, event): Old.LOST for event in Event},
}
NEW = {
    (New.IDLE, Event.OFFER): New.PREPARING,
    (New.IDLE, Event.DECLINE): New.OVER,
    (New.IDLE, Event.CUT): New.OVER,
    (New.PREPARING, Event.FOLLOWING): New.TAKING,
    (New.PREPARING, Event.DECLINE): New.OVER,
    (New.PREPARING, Event.CUT): New.SOLE,
    (New.TAKING, Event.DECLINE): New.OVER,
    (New.TAKING, Event.EMPTY): New.SOLE,
    (New.TAKING, Event.CUT): New.SOLE,
    (New.SOLE, Event.CUT): New.SOLE,
    **{(state, Event.FENCED): New.OVER for state in New},
    **{(New.OVER, event): New.OVER for event in Event},
}


@dataclass(slots=True)
class Predecessor:
    """The old process's end. held: its connections of this identity; those of `sent` are suspended and on their way."""

    identity: str
    state: Old = Old.OFFERED
    held: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)

    def _transit(self, event: Event) -> Old:
        """Change the state; returns the one before."""
        before = self.state
        try:
            self.state = OLD[before, event]
        except KeyError:
            raise TransitionError(f"{self.identity} handed over: {event.name} in state {before.name}") from None
        return before

    def offer(self, held: Iterable[str], epoch: bytes, replies: Position) -> Sequence[Do]:
        """Begin. held: all connections of the identity. replies: the position up to which its replies were read."""
        self.held = set(held)
        return [Action.KEEP_REPLIES, Send(Offer(VERSION, self.identity, epoch, replies))]

    def opened(self, connection: str) -> None:
        """One more socket was accepted, as happens until QUIESCE."""
        self.held.add(connection)

    def heard(self, message: FromNew) -> Sequence[Do]:
        """Take what the new process says; raises TransitionError where it may not say that."""
        if isinstance(message, Following):
            if self._transit(Event.FOLLOWING) is not Old.OFFERED:
                return []
            return [Action.DISCLAIM, Action.QUIESCE, *self._none_left()]
        if isinstance(message, Declined):
            return self._kept(Event.DECLINE)
        if self.state is Old.LOST:
            return []
        if message.connection not in self.sent:
            raise TransitionError(f"{self.identity} handed over: {message.connection} was answered, not sent")
        self.sent.remove(message.connection)
        if isinstance(message, Taken):
            self.held.remove(message.connection)
            return [Forget(message.connection), Send(Yours(message.connection)), *self._none_left()]
        return [Resume(message.connection), *([Action.CLOSE] if self.state is Old.CLOSING else [])]

    @property
    def takes_more(self) -> bool:
        """Whether quiet() sends a socket now; where it does not, it is to be called again after the next answer."""
        return self.state is Old.MOVING and len(self.sent) < MOST_ON_THEIR_WAY

    def quiet(self, connection: str) -> Sequence[Do]:
        """A held socket stands between two turns and can be suspended: suspend it if anything is returned."""
        if not self.takes_more or connection not in self.held or connection in self.sent:
            return []
        self.sent.add(connection)
        return [Transfer(connection)]

    def ended(self, connection: str) -> Sequence[Do]:
        """A connection's last turn is done."""
        self.held.discard(connection)
        return self._none_left()

    def late(self) -> Sequence[Do]:
        """The time is over: what was not sent yet ends here."""
        before = self._transit(Event.LATE)
        if before is Old.OFFERED:
            return [Send(Withdrawn()), Action.TRIM_REPLIES, Action.CLOSE]
        return [Action.CLOSE] if before is Old.MOVING else []

    def cut(self) -> Sequence[Do]:
        """The line has ended: the new process is dead, or has nothing more to say."""
        return self._kept(Event.CUT)

    def fenced(self) -> Sequence[Do]:
        """The lease was taken away. The new process is told at once, lest it go on with what others have reaped."""
        if self._transit(Event.FENCED) in {Old.GIVEN, Old.LOST}:
            return []
        self.held.clear()
        self.sent.clear()
        return [Send(Fenced()), Action.DROP]

    def _kept(self, event: Event) -> Sequence[Do]:
        before = self._transit(event)
        if before is Old.OFFERED:
            return [Action.TRIM_REPLIES, Action.CLOSE]
        if before not in {Old.MOVING, Old.CLOSING}:
            return []
        back, self.sent = sorted(self.sent), set()
        resumed = [Resume(connection) for connection in back]
        return [*resumed, Action.CLAIM, Action.TRIM_REPLIES, Action.REAP, Action.CLOSE]

    def _none_left(self) -> Sequence[Do]:
        if self.held or self.state not in {Old.MOVING, Old.CLOSING}:
            return []
        self._transit(Event.EMPTY)
        return [Send(NoneLeft()), Action.UNFOLLOW]


@dataclass(slots=True)
class Successor:
    """The new process's end. kept: connections whose records have come, and that are not ours yet."""

    identity: str = ""
    state: New = New.IDLE
    kept: set[str] = field(default_factory=set)

    def _transit(self, event: Event) -> New:
        """Change the state; returns the one before."""
        before = self.state
        try:
            self.state = NEW[before, event]
        except KeyError:
            raise TransitionError(f"{self.identity} taken over: {event.name} in state {before.name}") from None
        return before

    def heard(self, message: FromOld, is_usable: bool = True) -> Sequence[Do]:
        """Take what the old process says; raises TransitionError where it may not say that.

        is_usable: whether a Record's descriptor has come with it, and its socket can be served here.
        """
        if isinstance(message, Offer):
            return self._offered(message)
        if self.state is New.OVER:
            return []
        if isinstance(message, Withdrawn):
            self._transit(Event.DECLINE)
            return [Action.UNFOLLOW]
        if isinstance(message, Fenced):
            return self.fenced()
        if self.state is not New.TAKING:
            raise TransitionError(f"{self.identity} taken over: {type(message).__name__} in state {self.state.name}")
        if isinstance(message, Record):
            if not is_usable:
                return [Send(Refused(message.connection))]
            self.kept.add(message.connection)
            return [Send(Taken(message.connection))]
        if isinstance(message, Yours):
            self.kept.remove(message.connection)
            return [Begin(message.connection)]
        self._transit(Event.EMPTY)
        return [Action.CLAIM, Action.TRIM_REPLIES]

    def _offered(self, offer: Offer) -> Sequence[Do]:
        if abs(offer.version - VERSION) > 1:
            self._transit(Event.DECLINE)
            return [Send(Declined(VERSION))]
        self._transit(Event.OFFER)
        self.identity = offer.identity
        return [Action.FOLLOW]

    def followed(self) -> Sequence[Do]:
        """A read of the reply stream is on its way or has ended, and the lease was renewed."""
        if self.state is New.PREPARING:
            self._transit(Event.FOLLOWING)
            return [Send(Following())]
        return []

    def cut(self) -> Sequence[Do]:
        """The line has ended: the old process is dead, or has said NoneLeft. What has come whole is ours."""
        before = self._transit(Event.CUT)
        if before not in {New.PREPARING, New.TAKING}:
            return []
        ours, self.kept = sorted(self.kept), set()
        return [*map(Begin, ours), Action.CLAIM, Action.TRIM_REPLIES, Action.REAP]

    def fenced(self) -> Sequence[Do]:
        """The lease was taken away: what is kept is let go untouched, what was begun is closed."""
        if self._transit(Event.FENCED) in {New.IDLE, New.OVER}:
            return []
        self.kept.clear()
        return [Action.DROP]


class Gaps(NamedTuple):
    """What a taken socket still has to be given of each stream: what stands behind a position, up to another."""

    broadcasts: Gap | None
    replies: Gap | None


def missed(record: Record, epoch: bytes, *, broadcasts: Position, replies: Position) -> Gaps:
    """Return what a taken socket has missed.

    epoch, broadcasts, replies: where its new process stands, which gives it what it reads behind that. Frames can come
    between two turns, as those that a handler sent at once while Redis was full do; who reads them before the socket
    has come passes them over. The position of the newest such of this socket, 0 without one, will do for replies.
    """
    is_current = record.epoch == epoch  # a position means nothing in another epoch
    heard, answered = (record.broadcasts, record.replies) if is_current else (NOTHING, NOTHING)
    return Gaps(
        (heard, broadcasts) if record.groups and heard < broadcasts else None,
        (answered, replies) if answered < replies else None,
    )
