"""One WebSocket: reads frames into the connection's inbox, has its turns run, and writes what they produce.

Where a turn runs is not known here: `submit` hands the event to a channel layer, and `answer` hears of the outcome.
"""

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

from asgictl.config import Limits
from asgictl.interface.affinity import Route
from asgictl.interface.edge import ClientSocket, MovableSocket
from asgictl.interface.groups import Groups
from asgictl.interface.handover import Gap, Gaps, missed
from asgictl.interface.origin import REFUSAL, is_allowed
from asgictl.interface.turns import Connection, State
from asgictl.layers.base import Position
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.handover import NOTHING, Record
from asgictl.wire.manifest import Path
from asgictl.wire.messages import (
    INTERNAL_ERROR,
    TRY_AGAIN_LATER,
    Accept,
    Broadcast,
    Close,
    Connect,
    Done,
    Frame,
    Frames,
    Reply,
    Scope,
    TurnEvent,
    decode_scope,
    encode_scope,
)

logger = logging.getLogger("asgictl.interface")


class Host(Protocol):
    """What holds the sockets of one process."""

    groups: Groups
    limits: Limits
    figures: Figures
    rejections: Rejections

    def submit(self, socket: "ConsumerSocket", event: TurnEvent) -> None:
        """Have a turn run; socket.answer hears of it, never before submit returns."""

    def skip(self, socket: "ConsumerSocket") -> None:
        """Nobody waits for the handshake any more: call socket.skipped() if its turn is not going to run."""

    def give_up(self, socket: "ConsumerSocket", event: TurnEvent, reason: str) -> None:
        """A turn is not run again."""

    def closed(self, socket: "ConsumerSocket") -> None:
        """The socket's last turn is done."""

    def holds_back(self, socket: "ConsumerSocket") -> bool:
        """Whether no more turns are to begin here but the last ones of what ends, as the socket is to move."""


class Suspended(NamedTuple):
    """A socket that stands still, and can be moved."""

    record: Record
    descriptor: int


class ConsumerSocket:
    """A WebSocket and its connection: a SocketHandler. Make one, then open() it."""

    route: Route | None = None  # any worker may run any turn

    def __init__(self, id: str, scope: Scope, path: Path, host: Host, client: ClientSocket) -> None:
        self.id = id
        self.connection: Connection = Connection(id, encode_scope(scope), host.limits, path.at_most_once)
        self.pool: str = path.pool
        self._path = path
        self._is_foreign = not is_allowed(scope.headers, host.limits.allowed_origins)
        self._host = host
        self.client = client
        self._joined: set[str] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._room: asyncio.TimerHandle | None = None  # until which the client is not read, as the inbox is full
        self._late: list[tuple[Frame, bool]] | None = None  # what is delivered later, behind what comes first
        self._replies = NOTHING  # up to which the process before has applied them
        self._gaps = Gaps(None, None)  # what was missed of both streams when it came
        self._waiting_since = 0.0  # the oldest frame in the inbox; 0 when there is none
        self._turn_since = perf_counter()  # the oldest frame of the turn in flight

    def open(self) -> None:
        """Have the handshake answered; the socket's last turns may outlive its client."""
        if self._is_foreign:
            self._host.rejections.add("handshakes rejected with 403: Origin not allowed")
            self._close(REFUSAL)
        elif self._path.connect:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._host.limits.connect_deadline_seconds, self._too_late)
            self._host.submit(self, self.connection.connect())
        else:
            self._accept(Accept(None, []))

    def receive(self, frame: Frame) -> None:
        """Take a message that the client sent; while the inbox is full the client is not read."""
        if not self._path.receive:
            return
        self._waiting_since = self._waiting_since or perf_counter()
        self.connection.receive(frame)
        self.advance()
        if self.connection.full and self._room is None:
            self._wait_for_room()

    def resumed(self) -> None:
        """Nothing waits for a client that takes what was sent: a turn's frames are sent as they come."""

    def left(self, code: int, reason: str) -> None:
        """The client has left, or was closed."""
        self._leave(code, reason)

    def _no_room(self) -> None:
        self._host.rejections.add("sockets closed with 1013: no worker took the frames in time")
        self._close(Close(TRY_AGAIN_LATER, "no worker took your messages"))

    @property
    def repeatable(self) -> bool:
        """Whether a turn may run again when nobody knows whether it has run."""
        return not self._path.at_most_once

    def is_answered_by(self, reply: Reply) -> bool:
        """Whether this ends the turn in flight."""
        return isinstance(reply, Done) and reply.number == self.connection.number

    def answer(self, reply: Reply, position: Position | None) -> None:
        """Apply what a worker says of this connection."""
        if isinstance(reply, Frames):
            self.deliver_all(reply.frames)
        elif isinstance(reply, Done):
            self._done(reply, position)

    def _done(self, reply: Done, position: Position | None) -> None:
        """Apply what a turn produced; a reply to any turn but the one in flight is passed over."""
        if not self.connection.done(reply):
            logger.info("connection %s: dropped a late reply to turn %d", reply.connection, reply.number)
            return
        self._host.figures.turn(perf_counter() - self._turn_since, reply.run_seconds)
        if not self.client.is_accepted and self._deadline:
            self._deadline.cancel()
        if reply.accept is not None:
            self._accept(reply.accept)
        own = [frame for group, frame in reply.own if group in self._joined]
        for group in reply.joins if self.client.is_open else ():
            self._joined.add(group)
            self._host.groups.join(group, self, position or (0, 0))
        for group in reply.leaves:
            self._joined.discard(group)
            self._host.groups.leave(group, self)
        self.deliver_all(reply.frames + own)
        if reply.close is not None:
            self._close(reply.close)
        self.advance()

    def lost(self, started: bool) -> TurnEvent | None:
        """The worker of the turn in flight died; returns what to send again. A turn that kills workers ends here."""
        event = self.connection.event
        again = self.connection.lost(started)
        if again is None and event is not None:
            reason = f"its worker died, attempt {event.attempt}"
            logger.error("connection %s: dead-lettered a turn: %s", self.connection.id, reason)
            self._host.give_up(self, event, reason)
            if self.repeatable or not self.client.is_accepted:
                self._close(Close(INTERNAL_ERROR, "", 500))
            else:
                self.advance()
        return again

    def skipped(self) -> None:
        """The client left, or was refused, before any worker took the handshake: nobody is to hear of it."""
        self.connection.done(Done(self.connection.id, self.connection.number, [], b"", None, None, [], []))
        self.advance()

    def refused(self, for_good: bool) -> bool:
        """Redis takes none: a frame waits, and a handshake until its deadline. For good: it ends the socket."""
        if for_good and (event := self.connection.event):
            self._host.give_up(self, event, "Redis rejected it")
            self._close(Close(INTERNAL_ERROR, "", 500))
            self.skipped()
        return not for_good

    def deliver_all(self, frames: list[Frame]) -> None:
        """Put frames onto their way to the client, once it is accepted."""
        for frame in frames:
            self.deliver(frame)

    def deliver(self, frame: Frame, may_drop: bool = False) -> None:
        """Put a frame onto its way to the client; one too slow to take it goes without, or is closed with 1013."""
        if self._late is not None:
            self._late.append((frame, may_drop))
            return
        waiting = self.client.waiting_bytes
        if waiting and waiting + len(frame) > self._host.limits.outbox_bytes and self.client.is_open:
            if may_drop:
                self._host.rejections.add("group frames dropped: the client reads too slowly")
                return
            self._host.rejections.add("sockets closed with 1013: the client reads too slowly")
            self._close(Close(TRY_AGAIN_LATER, "reading too slowly"))
        self.client.frame(frame)

    # A hand-over's calls.

    def suspend(self, client: MovableSocket, epoch: bytes, replies: Position, broadcasts: Position) -> Suspended | None:
        """Stand still between two turns until resume() or forget(), or return None if that cannot be now.

        replies, broadcasts: the positions, of this epoch, up to which this process has read both streams.
        """
        connection = self.connection
        if connection.state is not State.IDLE or connection.leaving or self._late is not None:
            return None
        standing = client.suspend()
        if standing is None:
            return None
        self._late = []
        if self._room:
            self._room.cancel()
        groups = {group: self._host.groups.joined_at(group, self) for group in self._joined}
        numbers = (connection.number, connection.received, connection.suspects, connection.wants_disconnect)
        record = Record(
            *(self.id, connection.scope, self._path, connection.consumer_state, *numbers),
            *(standing.unread, list(connection.inbox), groups, epoch, replies, broadcasts),
            perf_counter() - self._waiting_since if self._waiting_since else 0.0,
        )
        return Suspended(record, standing.descriptor)

    def resume(self, client: MovableSocket) -> None:
        """Go on: nobody takes this socket."""
        client.wake()
        if self._room:
            self._wait_for_room()
        self.caught_up([], [])

    def forget(self, client: MovableSocket) -> None:
        """Let go of a suspended socket, so that neither client nor application notices."""
        for group in self._joined:
            self._host.groups.leave(group, self)
        client.let_go()

    @classmethod
    def of(cls, record: Record, host: Host, client: ClientSocket) -> "ConsumerSocket":
        """Make one by its record; restore() begins it. Raises WireError."""
        socket = cls(record.connection, decode_scope(record.scope), record.path, host, client)
        connection = socket.connection
        connection.scope, connection.consumer_state = record.scope, record.state
        connection.number, connection.received, connection.suspects = record.turn, record.received, record.suspects
        connection.wants_disconnect = record.wants_disconnect
        for frame in record.inbox:
            connection.receive(frame)
        return socket

    def restore(self, record: Record, epoch: bytes, *, broadcasts: Position, replies: Position) -> Gaps:
        """Serve, where the process before stood still; return what is to be fetched for caught_up(), if anything is.

        epoch, broadcasts, replies: the positions up to which this process has read both streams.
        """
        is_current = record.epoch == epoch
        for group, joined in record.groups.items():
            self._joined.add(group)
            self._host.groups.join(group, self, max(joined, record.broadcasts) if is_current else NOTHING)
        self._replies = record.replies if is_current else NOTHING
        self._gaps = missed(record, epoch, broadcasts=broadcasts, replies=replies)
        if any(self._gaps):
            self._late = []
        if self.connection.inbox:
            self._waiting_since = perf_counter() - record.waited_seconds
        if self.connection.full:
            self._wait_for_room()
        self.advance()
        return self._gaps

    def has_had(self, reply: Position) -> bool:
        """Whether the process before has applied the reply at this position."""
        return reply <= self._replies

    def caught_up(
        self, broadcasts: Sequence[tuple[Broadcast, Position]], replies: Sequence[tuple[Reply, Position]]
    ) -> None:
        """Deliver what was fetched, each in its order, and then what has come meanwhile.

        More may have been fetched than is missing, and for others too.
        """
        late, self._late = self._late or [], None
        for reply, position in replies:
            if isinstance(reply, Frames) and reply.connection == self.id and _is_in(self._gaps.replies, position):
                self.deliver_all(reply.frames)
        for broadcast, position in broadcasts:
            group = broadcast.group
            if group not in self._joined or broadcast.but == self.id or not _is_in(self._gaps.broadcasts, position):
                continue
            if position > self._host.groups.joined_at(group, self):
                self.deliver(broadcast.frame, broadcast.may_drop)
        for frame, may_drop in late:
            self.deliver(frame, may_drop)
        self.advance()

    def _wait_for_room(self) -> None:
        self.client.pause()
        loop = asyncio.get_running_loop()
        self._room = loop.call_later(self._host.limits.inbox_deadline_seconds, self._no_room)

    def _accept(self, accept: Accept) -> None:
        """Open the socket. Should the client have left meanwhile, the application hears of that, as it accepted."""
        self.connection.wants_disconnect = self._path.disconnect
        self.client.accept(accept)

    def _close(self, close: Close) -> None:
        """Close, or refuse the handshake; what the client sent but no consumer has seen is dropped."""
        self.client.close(close)
        self.connection.discard()
        self._leave(close.code, close.reason)

    def _too_late(self) -> None:
        """Nobody answered the handshake in time: refuse it, and pass over an answer that comes later."""
        self._host.rejections.add("handshakes rejected with 503: no worker answered in time")
        self._close(Close(TRY_AGAIN_LATER, "", 503))

    def _leave(self, code: int, reason: str) -> None:
        for timer in (self._deadline, self._room):
            if timer:
                timer.cancel()
        for group in self._joined:
            self._host.groups.leave(group, self)
        self._joined.clear()
        self.connection.leave(code, reason)
        if isinstance(self.connection.event, Connect):
            self._host.skip(self)
        self.advance()

    def advance(self) -> None:
        """Have the next turn run if there is one, and wake the reader if there is room."""
        if self.connection.leaving is None and (self._late is not None or self._host.holds_back(self)):
            return
        if event := self.connection.next():
            self._turn_since = self._waiting_since or perf_counter()
            self._waiting_since = perf_counter() if self.connection.inbox else 0.0
            self._host.submit(self, event)
        elif self.connection.state is State.CLOSED:
            self._host.closed(self)
        if self._room and not self.connection.full:
            self._room.cancel()
            self._room = None
            self.client.resume()


def _is_in(gap: Gap | None, position: Position) -> bool:
    return gap is not None and gap[0] < position <= gap[1]
