"""What surrounds a hand-over in its model: clients, Redis, the application, and sockets in their processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgictl.interface.handover import Gaps
from asgictl.wire.handover import Record
from asgictl.wire.messages import Frame

OLD, NEW = "old", "new"
BYE = "bye"  # the disconnect turn
LAST_WILL = 99  # its number: newer than any
Entry = tuple[Any, ...]


class Broken(AssertionError):
    """The world is in a state that it must not come to."""


@dataclass
class Sockets:
    """One connection in the process that holds it."""

    turn: int = 0
    in_flight: Entry | None = None
    inbox: list[Frame] = field(default_factory=list)
    received: int = 0
    is_suspended: bool = False
    is_leaving: bool = False
    has_run: bool = False  # its disconnect turn was begun
    replies: int = 0  # up to which it had them from the process before
    joined: int = 0
    late: list[str] | None = None  # live deliveries, while those before them are fetched
    gaps: Gaps | None = None  # to be fetched


@dataclass
class Process:
    """One end. trims, follows, claims: what it does about the identity."""

    name: str
    is_alive: bool = True
    sockets: dict[str, Sockets] = field(default_factory=dict)
    pipe: list[Entry] = field(default_factory=list)  # to Redis
    replies: int = 0
    broadcasts: int = 0
    epoch: int = 0
    follows: bool = False
    trims: bool = False
    claims: bool = False
    is_quiesced: bool = False
    reaps: bool = False
    to_reap: tuple[str, ...] = ()
    records: dict[str, Record] = field(default_factory=dict)


@dataclass
class Client:
    sent: int = 0
    unread: list[str] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    posted: int = 0
    closed: int = 0  # the code
    has_left: bool = False


@dataclass
class Budget:
    """How often each thing may happen that nobody is bound to do."""

    frames: int = 1  # of each client
    early: int = 0  # frames that a handler sends ahead of its commit
    posts: int = 0  # frames to a connection outside of its turns
    broadcasts: int = 0
    leaves: int = 0
    deaths: int = 0
    forgets: int = 0
    lates: int = 0
    trims: int = 0
    refusals: int = 0


@dataclass
class Faults:
    """Rules of the product that a test breaks, to see that the model notices."""

    controller_reaps_new: bool = False  # what design first had: the controller reaps the whole identity for the new one
    old_trims_on: bool = False
    ignores_floor: bool = False
    fetches_no_broadcasts: bool = False
    fetches_no_replies: bool = False
    trims_at_once: bool = False  # before what a socket missed was fetched
    begins_early: bool = False  # at the record, without "yours"
    forgets_early: bool = False  # at the record's sending
    cut_is_withdrawal: bool = False  # the new one lets go of what it keeps
    drops_while_suspended: bool = False  # what the old one hears for a socket on its way
    keeps_claim: bool = False  # the old one's, while both live


@dataclass(kw_only=True)
class Surroundings:
    """All but the hand-over."""

    budget: Budget
    faults: Faults
    clients: dict[str, Client]
    old: Process
    new: Process
    has_begun: bool = False
    # Redis
    ids: int = 0
    epoch: int = 1
    events: list[Entry] = field(default_factory=list)  # connection, turn, frames, whether one was sent early
    replies: list[Entry] | None = field(default_factory=list)  # id, connection, turn, frames
    said: list[Entry] = field(default_factory=list)  # broadcasts: id, text
    spoken: int = 0
    turns: dict[str, int] = field(default_factory=dict)
    wills: list[str]
    is_fenced: bool = False
    was_forgotten: bool = False
    # the application
    byes: dict[str, int]
    # the controller
    reaps: bool = False

    to_new: list[Any] = field(default_factory=list)  # the line
    to_old: list[Any] = field(default_factory=list)

    def _ended(self, process: Process, each: str) -> None:
        """A connection's last turn is done."""
        raise NotImplementedError

    # Clients, Redis, the application.

    def _process(self, name: str) -> Process:
        return self.old if name == OLD else self.new

    def _send(self, each: str) -> None:
        client = self.clients[each]
        client.sent += 1
        client.unread.append(f"{client.sent}")

    def _leave(self, each: str) -> None:
        self.budget.leaves -= 1
        self.clients[each].has_left = True

    def _redis(self, name: str) -> None:
        self.events.append(self._process(name).pipe.pop(0))

    def _id(self) -> int:
        self.ids += 1
        return self.ids

    def _early(self, place: int) -> None:
        self.budget.early -= 1
        each, turn, frames, _ = self.events[place]
        self.events[place] = (each, turn, frames, True)
        if self.replies is not None:
            self.replies.append((self._id(), each, 0, (f"early{turn}",)))

    def _work(self, place: int) -> None:
        """Run an event and commit it, as commit.lua does."""
        each, turn, frames, _ = self.events.pop(place)
        if turn <= self.turns.get(each, 0):
            return
        if self.replies is not None:
            self.replies.append((self._id(), each, turn, frames))
        elif frames != BYE:
            return  # refused: the interface is gone, or has forgotten with Redis
        if frames == BYE:
            self.turns.pop(each, None)
            self.wills = [other for other in self.wills if other != each]
            self.byes[each] += 1
        else:
            self.turns[each] = turn

    def _post(self, each: str) -> None:
        self.budget.posts -= 1
        if self.replies is not None:
            self.clients[each].posted += 1
            self.replies.append((self._id(), each, 0, (f"post{self.clients[each].posted}",)))

    def _broadcast(self) -> None:
        self.budget.broadcasts -= 1
        self.spoken += 1
        self.said.append((self._id(), f"said{self.spoken}"))

    def _forget(self) -> None:
        self.budget.forgets -= 1
        self.epoch += 1
        self.was_forgotten = True
        self.events, self.said, self.replies = [], [], None
        self.turns, self.wills, self.is_fenced, self.reaps = {}, [], False, False

    def _trim(self, name: str) -> None:
        self.budget.trims -= 1
        read = self._process(name).replies
        self.replies = [entry for entry in self.replies or () if entry[0] > read]

    # Processes.

    def _next_reply(self, process: Process) -> Entry | None:
        return next((entry for entry in self.replies or () if entry[0] > process.replies), None)

    def _next_broadcast(self, process: Process) -> Entry | None:
        return next((entry for entry in self.said if entry[0] > process.broadcasts), None)

    def _reply(self, name: str) -> None:
        process = self._process(name)
        entry = self._next_reply(process)
        assert entry
        process.replies, each, turn, frames = entry
        socket = process.sockets.get(each)
        if socket is None or (process.replies <= socket.replies and not self.faults.ignores_floor):
            return
        if not turn:
            self._take(each, socket, frames)
        elif socket.in_flight and socket.in_flight[1] == turn:
            self._done(process, each, socket, frames)

    def _done(self, process: Process, each: str, socket: Sockets, frames: Any) -> None:
        socket.in_flight = None
        if frames == BYE:
            del process.sockets[each]
            self._ended(process, each)
            return
        self._deliver(each, socket, [f"echo{frame}" for frame in frames])
        self._advance(process, each, socket)

    def _deliver(self, each: str, socket: Sockets, frames: Sequence[str]) -> None:
        if socket.is_suspended:
            raise Broken(f"{each} is written to while it is suspended")
        if not socket.is_leaving:
            self.clients[each].got += frames

    def _hear(self, name: str) -> None:
        process = self._process(name)
        entry = self._next_broadcast(process)
        assert entry
        process.broadcasts, text = entry
        for each, socket in process.sockets.items():
            if socket.joined < process.broadcasts:
                self._take(each, socket, [text])

    def _take(self, each: str, socket: Sockets, frames: Sequence[str]) -> None:
        if socket.late is not None:
            socket.late += frames
        else:
            self._deliver(each, socket, frames)

    def _fetch(self, name: str, each: str) -> None:
        socket = self._process(name).sockets[each]
        assert socket.gaps
        assert socket.late is not None
        found = []
        if (gap := socket.gaps.replies) and not self.faults.fetches_no_replies:
            posts = (entry for entry in self.replies or () if entry[1] == each and not entry[2])
            found += [text for id, _, _, frames in posts if gap[0] < (id, 0) <= gap[1] for text in frames]
        if (gap := socket.gaps.broadcasts) and not self.faults.fetches_no_broadcasts:
            found += [text for id, text in self.said if gap[0] < (id, 0) <= gap[1] and id > socket.joined]
        late, socket.late, socket.gaps = socket.late, None, None
        self._deliver(each, socket, [*found, *late])
        self._advance(self._process(name), each, socket)

    def _read(self, name: str, each: str) -> None:
        process, client = self._process(name), self.clients[each]
        socket = process.sockets[each]
        if client.unread:
            socket.inbox.append(client.unread.pop(0))
        else:
            client.closed = client.closed or 1001
            socket.is_leaving = True
        self._advance(process, each, socket)

    def _advance(self, process: Process, each: str, socket: Sockets) -> None:
        """Begin the next turn if there is one."""
        if socket.in_flight or ((process.is_quiesced or socket.gaps) and not socket.is_leaving):
            return
        if socket.inbox:
            socket.turn += 1
            socket.received += len(socket.inbox)
            socket.in_flight = (each, socket.turn, tuple(socket.inbox), False)
            socket.inbox = []
        elif socket.is_leaving and not socket.has_run:
            socket.turn, socket.has_run = socket.turn + 1, True
            socket.in_flight = (each, socket.turn, BYE, False)
        else:
            return
        process.pipe.append(socket.in_flight)

    def _notice(self, name: str) -> None:
        """Its beat tells a process that Redis has forgotten everything."""
        process = self._process(name)
        process.epoch, process.replies, process.broadcasts = self.epoch, 0, 0
        if not process.follows:
            return
        if self.replies is None:
            self.replies = []
        process.pipe = [socket.in_flight for socket in process.sockets.values() if socket.in_flight]

    def _kill(self, name: str, is_sent: bool) -> None:
        process = self._process(name)
        self.budget.deaths -= 1
        if is_sent:
            self.events += process.pipe
        self.reaps |= process.claims or (self.faults.controller_reaps_new and process is self.new and process.follows)
        self._ends(process)

    def _exit(self) -> None:
        self._ends(self.old)

    def _ends(self, process: Process) -> None:
        process.is_alive, process.follows, process.reaps = False, False, False
        process.sockets, process.pipe, process.records = {}, [], {}
        if process is self.old:
            self.to_old = []
        else:
            self.to_new = []

    # Reaping.

    def _has_lapsed(self) -> bool:
        return bool(self.wills) and not (self.old.is_alive and self.old.follows) and not self._is_renewed_by_new()

    def _is_renewed_by_new(self) -> bool:
        return self.new.is_alive and self.new.follows

    def _reap_all(self) -> None:
        """What reap_interface.lua does: one call of it, and as many as follow."""
        self.is_fenced = True
        self.replies = None
        self._run_wills(self.wills)
        self.reaps = bool(self.wills)

    def _look(self, name: str) -> None:
        """The first half of a survivor's reaping: learn which last wills there are."""
        process = self._process(name)
        process.to_reap = tuple(each for each in self.wills if each not in process.sockets)
        process.reaps = bool(process.to_reap)

    def _reap(self, name: str) -> None:
        process = self._process(name)
        self._run_wills(process.to_reap)
        process.to_reap = ()

    def _run_wills(self, connections: Sequence[str]) -> None:
        busy = {event[0] for event in self.events}
        for each in [each for each in connections if each in self.wills and each not in busy]:
            self.wills = [other for other in self.wills if other != each]
            self.events.append((each, LAST_WILL, BYE, False))
