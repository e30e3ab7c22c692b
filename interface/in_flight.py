"""Events on their way: from the moment an event is sent until its reply has come, the interface holds it.

So the interface alone decides what happens after a loss, and Redis is only transport. An event can be lost in four
ways, and comes back here in each: nobody knows whether Redis has it, and it may not run twice (else the link sends it
again); its worker died (reap_worker.lua says so); Redis has forgotten everything (its epoch changed); Redis has
forgotten this one, as a failover does, which only looking tells.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Protocol

from asgictl.config import CHANNEL_BYTES
from asgictl.interface.affinity import Route
from asgictl.layers.base import REFUSED_SECONDS, EventLayer, NotSent, OnItsWay, own_channel
from asgictl.wire.messages import Event, Lost, Receive, Turn

RESEND_SECONDS = 0.2  # between attempts to add an event that Redis refuses
FULL = "OOM "
HOMES = 3  # workers that an event is meant for, one after another; once all have refused it, any may have it
AUDIT_SECONDS = 1.0  # after which an event that is open is looked for in Redis; then twice as long, and so on


class Owner(Protocol):
    """Waits for the reply: a socket or a pending request.

    pool: the suffix of the channels that its events go to. route: to the worker that is to have them; None for any.
    """

    pool: str
    route: Route | None

    @property
    def repeatable(self) -> bool:
        """Whether the event may run again when nobody knows whether it has run."""

    def lost(self, started: bool) -> Event | None:
        """A worker that held the event died; return what to send again, or None to give up."""

    def refused(self, for_good: bool) -> bool:
        """The layer has not taken the event; return whether to try again. for_good: it has said so for long."""


class Stage(Enum):
    WAITING = auto()  # for room in its channel
    RESENDING = auto()  # in a moment: Redis refused it
    SENT = auto()  # perhaps Redis has it


class Channel:
    """A channel's load: this interface's events and their bytes, those of others, and what waits for room."""

    __slots__ = ("bytes", "name", "open", "others", "waiting")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.open: int = 0
        self.bytes: int = 0
        self.others: int = 0
        self.waiting: deque[Dispatched] = deque()


class Dispatched:
    """One event. entry: its id in the channel's stream, once XADD was answered. size: bytes of it, once it was sent.

    name: of the channel that it was sent to: its own, or a worker's. refusals: of workers that it was meant for.
    """

    __slots__ = (
        "audit_at",
        "audit_seconds",
        "channel",
        "entry",
        "event",
        "name",
        "on_its_way",
        "owner",
        "refusals",
        "refused_at",
        "size",
        "skipped",
        "stage",
    )

    def __init__(self, event: Event, owner: Owner, channel: Channel, now: float) -> None:
        self.event: Event = event
        self.owner: Owner = owner
        self.channel: Channel = channel
        self.entry: bytes | None = None
        self.name: str = channel.name
        self.size: int = 0
        self.refusals: int = 0
        self.refused_at: float = 0.0  # since when the layer refuses it, 0 when it does not
        self.stage: Stage = Stage.WAITING
        self.on_its_way: OnItsWay | None = None
        self.skipped: Callable[[], None] | None = None  # to be called if no worker gets it, once nobody waits for it
        self.audit_seconds: float = AUDIT_SECONDS
        self.audit_at: float = now + AUDIT_SECONDS


class InFlight:
    """All events of an interface that are open: at most one for each connection.

    capacity: of a channel, in events; what other interfaces have in it is known from the layer, each second.
    reject: told of each sending that Redis has refused, in its words. capacity_bytes: of a channel, of this interface's
    events alone: other interfaces' are known only by their number.
    """

    def __init__(
        self, layer: EventLayer, capacity: int, reject: Callable[[str], None], capacity_bytes: int = CHANNEL_BYTES
    ) -> None:
        self._layer = layer
        self._reject = reject
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._in_flight: dict[str, Dispatched] = {}
        self._channels: dict[str, Channel] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def full(self, channel: str) -> bool:
        """Whether a channel is at its capacity: requests and handshakes are refused then, frames wait."""
        return self._is_full(self._channel(channel))

    def _channel(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
        return channel

    def _is_full(self, channel: Channel) -> bool:
        return channel.open + channel.others >= self._capacity or channel.bytes >= self._capacity_bytes

    def send(self, event: Event, owner: Owner) -> None:
        """Send an event, again and again while Redis is away: whatever the number of sendings, one output counts."""
        self._loop = loop = self._loop or asyncio.get_running_loop()  # a system call before Python 3.12
        channel = self._channel(event.channel + owner.pool)
        dispatched = self._in_flight[event.connection] = Dispatched(event, owner, channel, loop.time())
        if isinstance(event, Receive) and (channel.waiting or self._is_full(channel)):
            channel.waiting.append(dispatched)
        else:
            channel.open += 1
            self._dispatch(dispatched)

    def added(self, connection: str) -> bool:
        """Whether Redis is known to have taken the connection's event."""
        dispatched = self._in_flight.get(connection)
        return dispatched is not None and dispatched.entry is not None

    def complete(self, connection: str) -> None:
        """The reply has come, or nobody waits for it any more."""
        if dispatched := self._in_flight.pop(connection, None):
            channel = dispatched.channel
            if dispatched.stage is Stage.WAITING:
                channel.waiting.remove(dispatched)
            else:
                channel.open -= 1
                channel.bytes -= dispatched.size
            if dispatched.entry is None and dispatched.on_its_way:
                dispatched.on_its_way.withdraw()
            if channel.waiting:
                self._dispatch_waiting(channel)

    def clear(self) -> None:
        """What is open is no longer ours: send nothing of it again, and nothing of what waits."""
        self._in_flight.clear()
        self._channels.clear()

    def skip(self, connection: str, skipped: Callable[[], None]) -> None:
        """Nobody waits for the reply: call skipped() if no worker has taken the event, and none will any more."""
        if dispatched := self._in_flight.get(connection):
            dispatched.skipped = skipped
            self._remove(dispatched)

    def lost(self, lost: Lost) -> None:
        """A dead worker held an event; a word about any but the newest attempt of it is passed over."""
        dispatched = self._in_flight.get(lost.connection)
        if dispatched and (lost.number, lost.attempt) == (number_of(dispatched.event), dispatched.event.attempt):
            self._lost(dispatched, lost.started)

    def forgotten(self) -> None:
        """Redis has forgotten everything: send again what it had; the layer sends what is on its way."""
        for dispatched in [
            each for each in self._in_flight.values() if each.entry is not None
        ]:  # the link has the others
            self._again(dispatched)

    def audit(self) -> None:
        """Each second: look for the events that have been open for long, and at how full the channels are."""
        now = asyncio.get_running_loop().time()
        for dispatched in list(self._in_flight.values()):
            if dispatched.entry is not None and dispatched.audit_at <= now:
                dispatched.audit_seconds *= 2
                dispatched.audit_at = now + dispatched.audit_seconds
                self._layer.audit(dispatched.name, dispatched.event, dispatched.entry, partial(self._again, dispatched))
        for channel in self._channels.values():
            self._layer.depth(channel.name, partial(self._deep, channel))

    def _deep(self, channel: Channel, reply: object) -> None:
        if isinstance(reply, int):
            channel.others = max(reply - channel.open, 0)
            self._dispatch_waiting(channel)

    def _dispatch(self, dispatched: Dispatched) -> None:
        dispatched.stage, dispatched.entry = Stage.SENT, None
        owner, event, answered = dispatched.owner, dispatched.event, partial(self._answered, dispatched)
        name = dispatched.name = dispatched.channel.name
        if owner.route and dispatched.refusals < HOMES and (home := owner.route.home(name)):
            name = dispatched.name = own_channel(name, home)
            way = self._layer.append(name, event, answered, repeatable=owner.repeatable, is_own=True)
        else:
            way = self._layer.append(name, event, answered, repeatable=owner.repeatable)
        dispatched.on_its_way = way
        size = way.size
        dispatched.channel.bytes += size - dispatched.size
        dispatched.size = size

    def _dispatch_waiting(self, channel: Channel) -> None:
        while channel.waiting and not self._is_full(channel):
            channel.open += 1
            self._dispatch(channel.waiting.popleft())

    def _answered(self, dispatched: Dispatched, reply: object) -> None:
        if isinstance(reply, bytes):
            dispatched.entry, dispatched.refused_at = reply, 0.0
            if dispatched.skipped:
                self._remove(dispatched)
        elif self._is_over(dispatched):
            return
        elif dispatched.name != dispatched.channel.name and not isinstance(reply, ConnectionError):
            dispatched.refusals += 1
            if route := dispatched.owner.route:
                route.refused(partial(self._dispatch_again, dispatched))
        elif not isinstance(reply, ConnectionError):  # refused, so it is certain that Redis has not taken it
            self._reject(f"events rejected by Redis: {reply}")
            now = asyncio.get_running_loop().time()
            dispatched.refused_at = dispatched.refused_at or now
            # A Redis without room may find some.
            for_good = now - dispatched.refused_at > REFUSED_SECONDS and not str(reply).startswith(FULL)
            if for_good:
                self.complete(dispatched.event.connection)
                dispatched.owner.refused(for_good)
            elif dispatched.owner.refused(for_good):
                self._dispatch_later(dispatched)
            else:
                self.complete(dispatched.event.connection)
        elif isinstance(reply, NotSent):  # too much waits for Redis already
            self._dispatch_later(dispatched)
        else:
            self._lost(dispatched, started=True)

    def _remove(self, dispatched: Dispatched) -> None:
        """Take an event out of Redis that nobody waits for; one that is on its way there, once it has arrived."""

        def removed(entry: bytes, reply: object) -> None:
            if reply == 1 and dispatched.entry == entry and not self._is_over(dispatched) and dispatched.skipped:
                self.complete(dispatched.event.connection)
                dispatched.skipped()

        if dispatched.entry and dispatched.skipped:
            self._layer.remove(dispatched.name, dispatched.entry, partial(removed, dispatched.entry))

    def _is_over(self, dispatched: Dispatched) -> bool:
        return self._in_flight.get(dispatched.event.connection) is not dispatched

    def _dispatch_later(self, dispatched: Dispatched) -> None:
        dispatched.stage = Stage.RESENDING
        asyncio.get_running_loop().call_later(RESEND_SECONDS, self._dispatch_again, dispatched)

    def _dispatch_again(self, dispatched: Dispatched) -> None:
        if not self._is_over(dispatched):
            self._dispatch(dispatched)

    def _again(self, dispatched: Dispatched) -> None:
        """Send an event that is not in Redis any more, or give it up if it may have run and must not run twice."""
        if self._is_over(dispatched):
            return
        if dispatched.owner.repeatable:
            self._dispatch(dispatched)
        else:
            self._lost(dispatched, started=True)

    def _lost(self, dispatched: Dispatched, started: bool) -> None:
        self.complete(dispatched.event.connection)
        if again := dispatched.owner.lost(started):
            self.send(again, dispatched.owner)


def number_of(event: Event) -> int:
    """Return the number of a WebSocket's turn, 0 for an HTTP request."""
    return event.number if isinstance(event, Turn) else 0
