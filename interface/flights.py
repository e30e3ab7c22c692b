"""Events on their way: from the moment an event is sent until its reply has come, the interface holds it.

So the interface alone decides what happens after a loss, and Redis is only transport. An event can be lost in four
ways, and comes back here in each: XADD was not answered; its worker died (release.lua says so); Redis has forgotten
everything (its epoch changed); Redis has forgotten this one, as a failover does, which only looking tells.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Protocol

from asgictl.layers.base import EventLayer
from asgictl.messages import Event, Lost, Request

RESEND_SECONDS = 0.2  # between attempts to add an event while Redis is away
AUDIT_SECONDS = 1.0  # after which an event that is open is looked for in Redis; then twice as long, and so on


class Owner(Protocol):
    """What waits for the reply: a session or an exchange."""

    def lost(self, started: bool) -> Event | None:
        """A worker that held the event died; return what to send again, or None to give up."""


class Flight:
    """One event. entry: its id in the channel's stream, once XADD was answered."""

    __slots__ = ("audit_at", "audit_seconds", "entry", "event", "owner")

    def __init__(self, event: Event, owner: Owner, now: float) -> None:
        self.event = event
        self.owner = owner
        self.entry: bytes | None = None
        self.audit_seconds = AUDIT_SECONDS
        self.audit_at = now + AUDIT_SECONDS


class Flights:
    """All events of an interface that are open: at most one for each connection."""

    def __init__(self, layer: EventLayer) -> None:
        self._layer = layer
        self._flights: dict[str, Flight] = {}
        self.open: Counter[str] = Counter()  # by channel

    def send(self, event: Event, owner: Owner) -> None:
        """Send an event, again and again while Redis is away: whatever the number of sendings, one output counts."""
        flight = self._flights[event.connection] = Flight(event, owner, asyncio.get_running_loop().time())
        self.open[event.channel] += 1
        self._layer.append(event, partial(self._answered, flight, event))

    def added(self, connection: str) -> bool:
        """Whether Redis is known to have taken the connection's event."""
        flight = self._flights.get(connection)
        return flight is not None and flight.entry is not None

    def land(self, connection: str) -> None:
        """The reply has come, or nobody waits for it any more."""
        if flight := self._flights.pop(connection, None):
            self.open[flight.event.channel] -= 1

    def lost(self, lost: Lost) -> None:
        """A dead worker held an event; a word about any but the newest attempt of it is passed over."""
        flight = self._flights.get(lost.connection)
        if flight and (lost.number, lost.attempt) == (number_of(flight.event), flight.event.attempt):
            self.land(lost.connection)
            if again := flight.owner.lost(lost.started):
                self.send(again, flight.owner)

    def forgotten(self) -> None:
        """Redis has forgotten everything: send what is open again."""
        for flight in list(self._flights.values()):
            self._again(flight, flight.event)

    def audit(self) -> None:
        """Each second: look for the events that have been open for long."""
        now = asyncio.get_running_loop().time()
        for flight in list(self._flights.values()):
            if flight.entry is not None and flight.audit_at <= now:
                flight.audit_seconds *= 2
                flight.audit_at = now + flight.audit_seconds
                self._layer.audit(flight.event, flight.entry, partial(self._again, flight, flight.event))

    def _answered(self, flight: Flight, event: Event, reply: object) -> None:
        if isinstance(reply, bytes):
            flight.entry = reply
        elif self._flights.get(event.connection) is flight:
            asyncio.get_running_loop().call_later(RESEND_SECONDS, self._again, flight, event)

    def _again(self, flight: Flight, event: Event) -> None:
        if self._flights.get(event.connection) is flight:
            flight.entry = None
            self._layer.append(event, partial(self._answered, flight, event))


def number_of(event: Event) -> int:
    """Return the number of a WebSocket's turn, 0 for an HTTP request."""
    return 0 if isinstance(event, Request) else event.number
