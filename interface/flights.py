"""Events on their way: from the moment an event is sent until its reply has come, the interface holds it.

So the interface alone decides what happens after a loss, and Redis is only transport. An event can be lost in four
ways, and comes back here in each: XADD was not answered; its worker died (release.lua says so); Redis has forgotten
everything (its epoch changed); Redis has forgotten this one, as a failover does, which only looking tells.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Protocol

from asgictl.layers.base import EventLayer, NotSent
from asgictl.wire.messages import Event, Lost, Receive, Turn

RESEND_SECONDS = 0.2  # between attempts to add an event while Redis is away
AUDIT_SECONDS = 1.0  # after which an event that is open is looked for in Redis; then twice as long, and so on


class Owner(Protocol):
    """What waits for the reply: a session or an exchange. pool: the suffix of the channels that its events go to."""

    pool: str

    @property
    def repeatable(self) -> bool:
        """Whether the event may run again when nobody knows whether it has run."""

    def lost(self, started: bool) -> Event | None:
        """A worker that held the event died; return what to send again, or None to give up."""

    def refused(self) -> bool:
        """The layer has not taken the event; return whether to try again."""


class Stage(Enum):
    WAITING = auto()  # for room in its channel
    RESENDING = auto()  # in a moment: Redis was away, or refused it
    SENT = auto()  # perhaps Redis has it


class Flight:
    """One event. entry: its id in the channel's stream, once XADD was answered."""

    __slots__ = ("audit_at", "audit_seconds", "channel", "entry", "event", "owner", "skipped", "stage")

    def __init__(self, event: Event, owner: Owner, now: float) -> None:
        self.event = event
        self.owner = owner
        self.channel = event.channel + owner.pool
        self.entry: bytes | None = None
        self.stage = Stage.WAITING
        self.skipped: Callable[[], None] | None = None  # to be called if no worker gets it, once nobody waits for it
        self.audit_seconds = AUDIT_SECONDS
        self.audit_at = now + AUDIT_SECONDS


class Flights:
    """All events of an interface that are open: at most one for each connection.

    capacity: of a channel, in events; what other interfaces have in it is known from the layer, each second.
    shed: told of each sending that Redis has refused, in its words.
    """

    def __init__(self, layer: EventLayer, capacity: int, shed: Callable[[str], None]) -> None:
        self._layer = layer
        self._shed = shed
        self._capacity = capacity
        self._flights: dict[str, Flight] = {}
        self._waiting: dict[str, deque[Flight]] = {}  # by channel
        self._open: Counter[str] = Counter()  # by channel
        self._others: Counter[str] = Counter()  # by channel, events of other interfaces

    def full(self, channel: str) -> bool:
        """Whether a channel is at its capacity: requests and handshakes are refused then, frames wait."""
        return self._open[channel] + self._others[channel] >= self._capacity

    def send(self, event: Event, owner: Owner) -> None:
        """Send an event, again and again while Redis is away: whatever the number of sendings, one output counts."""
        flight = self._flights[event.connection] = Flight(event, owner, asyncio.get_running_loop().time())
        if isinstance(event, Receive) and (flight.channel in self._waiting or self.full(flight.channel)):
            self._waiting.setdefault(flight.channel, deque()).append(flight)
        else:
            self._open[flight.channel] += 1
            self._launch(flight)

    def added(self, connection: str) -> bool:
        """Whether Redis is known to have taken the connection's event."""
        flight = self._flights.get(connection)
        return flight is not None and flight.entry is not None

    def land(self, connection: str) -> None:
        """The reply has come, or nobody waits for it any more."""
        if flight := self._flights.pop(connection, None):
            if flight.stage is Stage.WAITING:
                self._waiting[flight.channel].remove(flight)
            else:
                self._open[flight.channel] -= 1
            if flight.channel in self._waiting:
                self._launch_waiting(flight.channel)

    def clear(self) -> None:
        """What is open is no longer ours: send nothing of it again, and nothing of what waits."""
        self._flights.clear()
        self._waiting.clear()
        self._open.clear()

    def skip(self, connection: str, skipped: Callable[[], None]) -> None:
        """Nobody waits for the reply: call skipped() if no worker has taken the event, and none will any more."""
        if flight := self._flights.get(connection):
            flight.skipped = skipped
            self._remove(flight)

    def lost(self, lost: Lost) -> None:
        """A dead worker held an event; a word about any but the newest attempt of it is passed over."""
        flight = self._flights.get(lost.connection)
        if flight and (lost.number, lost.attempt) == (number_of(flight.event), flight.event.attempt):
            self._lost(flight, lost.started)

    def forgotten(self) -> None:
        """Redis has forgotten everything: send what is open again."""
        for flight in [flight for flight in self._flights.values() if flight.stage is Stage.SENT]:
            self._again(flight)

    def audit(self) -> None:
        """Each second: look for the events that have been open for long, and at how full the channels are."""
        now = asyncio.get_running_loop().time()
        for flight in list(self._flights.values()):
            if flight.entry is not None and flight.audit_at <= now:
                flight.audit_seconds *= 2
                flight.audit_at = now + flight.audit_seconds
                self._layer.audit(flight.channel, flight.event, flight.entry, partial(self._again, flight))
        for channel in list(self._open):
            self._layer.depth(channel, partial(self._deep, channel))

    def _deep(self, channel: str, reply: object) -> None:
        if isinstance(reply, int):
            self._others[channel] = max(reply - self._open[channel], 0)
            self._launch_waiting(channel)

    def _launch(self, flight: Flight) -> None:
        flight.stage, flight.entry = Stage.SENT, None
        self._layer.append(flight.channel, flight.event, partial(self._answered, flight))

    def _launch_waiting(self, channel: str) -> None:
        waiting = self._waiting.get(channel)
        while waiting and not self.full(channel):
            self._open[channel] += 1
            self._launch(waiting.popleft())
        if not waiting:
            self._waiting.pop(channel, None)

    def _answered(self, flight: Flight, reply: object) -> None:
        if isinstance(reply, bytes):
            flight.entry = reply
            self._remove(flight)
        elif self._is_over(flight):
            return
        elif not isinstance(reply, ConnectionError):  # refused, so it is certain that Redis has not taken it
            self._shed(f"events refused by Redis: {reply}")
            if flight.owner.refused():
                self._launch_later(flight)
            else:
                self.land(flight.event.connection)
        elif isinstance(reply, NotSent) or flight.owner.repeatable:
            self._launch_later(flight)
        else:
            self._lost(flight, started=True)

    def _remove(self, flight: Flight) -> None:
        """Take an event out of Redis that nobody waits for; one that is on its way there, once it has arrived."""

        def removed(entry: bytes, reply: object) -> None:
            if reply == 1 and flight.entry == entry and not self._is_over(flight) and flight.skipped:
                self.land(flight.event.connection)
                flight.skipped()

        if flight.entry and flight.skipped:
            self._layer.remove(flight.channel, flight.entry, partial(removed, flight.entry))

    def _is_over(self, flight: Flight) -> bool:
        return self._flights.get(flight.event.connection) is not flight

    def _launch_later(self, flight: Flight) -> None:
        flight.stage = Stage.RESENDING
        asyncio.get_running_loop().call_later(RESEND_SECONDS, self._relaunch, flight)

    def _relaunch(self, flight: Flight) -> None:
        if not self._is_over(flight):
            self._launch(flight)

    def _again(self, flight: Flight) -> None:
        """Send an event that is not in Redis any more, or give it up if it may have run and must not run twice."""
        if self._is_over(flight):
            return
        if flight.owner.repeatable:
            self._launch(flight)
        else:
            self._lost(flight, started=True)

    def _lost(self, flight: Flight, started: bool) -> None:
        self.land(flight.event.connection)
        if again := flight.owner.lost(started):
            self.send(again, flight.owner)


def number_of(event: Event) -> int:
    """Return the number of a WebSocket's turn, 0 for an HTTP request."""
    return event.number if isinstance(event, Turn) else 0
