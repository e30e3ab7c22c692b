"""A world in which two interfaces hand over sockets, small enough that all that can happen in it can be tried.

The decisions are the product's (interface/handover.py). All about them is made of as little as shows what they are
for: clients that send numbered frames, a stream of events, a reply stream and a broadcast stream that each process
reads at its own pace, last wills, a controller. One step is one of its moves; which comes next is the caller's choice.
A process that stands still is one whose moves are not chosen.

Left out: what a lone interface does as well (a worker's death, lapsed leases), and what Redis has not read of a
connection when its process is killed: a move earlier or later it is read, for the reaper's first look comes behind.
"""

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from asgictl.interface.handover import Action, Begin, Do, Forget, Predecessor, Resume, Send, Successor, Transfer, missed
from asgictl.wire.handover import FromNew, FromOld, Record
from asgictl.wire.manifest import ANY
from tests.interface.handover_surroundings import (
    BYE,
    NEW,
    OLD,
    Broken,
    Budget,
    Client,
    Entry,
    Faults,
    Process,
    Sockets,
    Surroundings,
)

IDENTITY = "i"


@dataclass(kw_only=True)
class World(Surroundings):
    """Everything. must() and may() name what can happen; do() has it happen."""

    giver: Predecessor = field(default_factory=lambda: Predecessor(IDENTITY))
    taker: Successor = field(default_factory=Successor)
    old_heard_end: bool = False
    new_heard_end: bool = False

    @classmethod
    def of(cls, connections: Sequence[str], budget: Budget, faults: Faults) -> "World":
        """Return the beginning: the old process serves, the new one is ready."""
        old = Process(OLD, sockets={each: Sockets() for each in connections}, epoch=1)
        old.follows = old.trims = old.claims = True
        clients = {each: Client() for each in connections}
        parts: dict[str, Any] = {
            "budget": budget,
            "faults": faults,
            "clients": clients,
            "old": old,
            "new": Process(NEW, epoch=1),
        }
        return cls(wills=list(connections), byes=dict.fromkeys(connections, 0), **parts)

    def copy(self) -> "World":
        """Return one that goes its own way."""
        copied: World = pickle.loads(self.key())  # noqa: S301 - our own
        return copied

    def key(self) -> bytes:
        """Return what is alike for worlds that are alike."""
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)

    # What can happen. Those of `must` happen at some time; those of `may` may.

    def must(self) -> Iterator[Entry]:
        """Yield the moves that somebody is bound to make."""
        if not self.has_begun and self.old.is_alive:
            yield ("offer",)
        for process in (self.old, self.new):
            yield from self._of_process(process)
        for place in range(len(self.events)):
            yield ("work", place)
        yield from self._of_line()
        if self.reaps or self._has_lapsed():
            yield ("reap all",)

    def _of_process(self, process: Process) -> Iterator[Entry]:
        name = process.name
        if not process.is_alive:
            return
        if process.pipe:
            yield ("redis", name)
        if process.follows and self._next_reply(process):
            yield ("reply", name)
        elif self._next_broadcast(process):
            yield ("hear", name)
        if process.epoch != self.epoch:
            yield ("notice", name)
        if process.follows and self.is_fenced:
            yield ("beat", name)
        if process.reaps:
            yield ("reap", name) if process.to_reap else ("look", name)
        for each, socket in process.sockets.items():
            client = self.clients[each]
            if not (socket.is_suspended or socket.is_leaving) and (client.unread or client.has_left):
                yield ("read", name, each)
            if socket.gaps:
                yield ("fetch", name, each)

    def _of_line(self) -> Iterator[Entry]:
        if self.old.is_alive:
            if self.to_old:
                yield ("old hears",)
            elif not self.new.is_alive and self.has_begun and not self.old_heard_end:
                yield ("old hears the end",)
            for each, socket in self.old.sockets.items():
                if self.giver.takes_more and self._is_quiet(socket):
                    yield ("quiet", each)
        if self.new.is_alive:
            if self.to_new:
                yield ("new hears",)
            elif not self.old.is_alive and not self.new_heard_end:
                yield ("new hears the end",)
            if self.new.follows and self.taker.state.name == "PREPARING":
                yield ("followed",)

    def may(self) -> Iterator[Entry]:
        """Yield the moves that nobody is bound to make."""
        budget = self.budget
        for each, client in self.clients.items():
            if client.sent < budget.frames and not (client.closed or client.has_left):
                yield ("send", each)
            if budget.leaves and not (client.closed or client.has_left):
                yield ("leave", each)
            if budget.posts and not client.closed:
                yield ("post", each)
        for place, event in enumerate(self.events):
            if budget.early and event[2] != BYE and not event[3]:
                yield ("early", place)
        for name, can in (("broadcast", budget.broadcasts), ("forget", budget.forgets)):
            if can:
                yield (name,)
        if budget.lates and self.has_begun and self.old.is_alive and self.giver.state.name in {"OFFERED", "MOVING"}:
            yield ("late",)
        for process in (self.old, self.new):
            if budget.deaths and process.is_alive:
                yield ("kill", process.name, True)
                if process.pipe:
                    yield ("kill", process.name, False)
            waits = any(socket.gaps for socket in process.sockets.values()) and not self.faults.trims_at_once
            if budget.trims and process.is_alive and process.trims and self.replies and not waits:
                yield ("trim", process.name)
        if budget.refusals and self.new.is_alive and self.to_new and isinstance(self.to_new[0], Record):
            yield ("new hears", False)
        if self.old.is_alive and self.giver.state.name == "GIVEN" and not (self.old.sockets or self.old.pipe):
            yield ("exit",)

    def do(self, move: Entry) -> None:
        """Make a move; raises Broken."""
        name, *arguments = move
        getattr(self, "_" + name.replace(" ", "_"))(*arguments)
        self._close_abandoned()
        self._check()

    # The hand-over.

    def _beat(self, name: str) -> None:
        process = self._process(name)
        if process is self.old:
            self._carry_out_old(self.giver.fenced())
        else:
            self._carry_out_new(self.taker.fenced())
        process.follows = False

    def _ended(self, process: Process, each: str) -> None:
        if process is self.old and self.has_begun:
            self._carry_out_old(self.giver.ended(each))

    def _is_quiet(self, socket: Sockets) -> bool:
        return not (socket.in_flight or socket.is_leaving or socket.is_suspended)

    def _offer(self) -> None:
        self.has_begun = True
        self._carry_out_old(self.giver.offer(self.old.sockets, b"%d" % self.old.epoch, (self.old.replies, 0)))

    def _followed(self) -> None:
        self._carry_out_new(self.taker.followed())

    def _quiet(self, each: str) -> None:
        self._carry_out_old(self.giver.quiet(each))

    def _late(self) -> None:
        self.budget.lates -= 1
        self._carry_out_old(self.giver.late())

    def _old_hears(self) -> None:
        self._carry_out_old(self.giver.heard(self.to_old.pop(0)))

    def _old_hears_the_end(self) -> None:
        self.old_heard_end = True
        self._carry_out_old(self.giver.cut())

    def _new_hears(self, has_descriptor: bool = True) -> None:
        message = self.to_new.pop(0)
        if not has_descriptor:
            self.budget.refusals -= 1
        elif isinstance(message, Record):
            self.new.records[message.connection] = message
        does = self.taker.heard(message, has_descriptor)
        if isinstance(message, Record) and self.faults.begins_early:
            does = [*does, Begin(message.connection)]
        self._carry_out_new(does)

    def _new_hears_the_end(self) -> None:
        self.new_heard_end = True
        if self.faults.cut_is_withdrawal:
            self.taker.kept.clear()
        self._carry_out_new(self.taker.cut())

    def _carry_out_old(self, does: Sequence[Do]) -> None:
        old = self.old
        for do in does:
            if isinstance(do, Send):
                self._say(self.to_new, self.new, do.message)
            elif isinstance(do, Transfer):
                old.sockets[do.connection].is_suspended = True
                old.sockets[do.connection].late = []  # its own, should it come back; else the new one fetches them
                self._say(self.to_new, self.new, self._record(do.connection, old.sockets[do.connection]))
                if self.faults.forgets_early:
                    del old.sockets[do.connection]
            elif isinstance(do, Resume):
                if do.connection in old.sockets:  # but for a fault
                    self._resume(do.connection, old.sockets[do.connection])
            elif isinstance(do, Forget):
                old.sockets.pop(do.connection, None)
            elif do is Action.KEEP_REPLIES:
                old.trims = self.faults.old_trims_on
            else:
                self._carry_out(old, do)

    def _carry_out_new(self, does: Sequence[Do]) -> None:
        new = self.new
        for do in does:
            if isinstance(do, Send):
                self._say(self.to_old, self.old, do.message)
            elif isinstance(do, Begin):
                self._begin(new.records.pop(do.connection))
            elif do is Action.FOLLOW:
                new.follows, new.replies = True, 0
                if self.replies is None and not self.is_fenced:
                    self.replies = []
            else:
                self._carry_out(new, do)

    def _carry_out(self, process: Process, do: Do) -> None:
        """Do what either end does."""
        if do is Action.QUIESCE:
            process.is_quiesced = True
        elif do in {Action.CLAIM, Action.DISCLAIM}:
            process.claims = do is Action.CLAIM or self.faults.keeps_claim
        elif do is Action.TRIM_REPLIES:
            process.trims = True
        elif do is Action.REAP:
            process.reaps = True
        elif do is Action.UNFOLLOW:
            process.follows = process.trims = process.claims = False
        elif do is Action.CLOSE:
            for each, socket in list(process.sockets.items()):
                if not socket.is_suspended and not socket.is_leaving:
                    self.clients[each].closed = self.clients[each].closed or 1012
                    socket.is_leaving = True
                    self._advance(process, each, socket)
        elif do is Action.DROP:
            for each in process.sockets:
                self.clients[each].closed = self.clients[each].closed or 1012
            process.sockets, process.records, process.pipe = {}, {}, []
        else:
            raise AssertionError(do)

    def _say(self, line: list[Any], other: Process, message: FromOld | FromNew) -> None:
        if other.is_alive:
            line.append(message)

    def _record(self, each: str, socket: Sockets) -> Record:
        return Record(
            *(each, b"", ANY, b"", socket.turn, socket.received, 0, True, b"", list(socket.inbox)),
            *({"g": (socket.joined, 0)}, b"%d" % self.old.epoch, (self.old.replies, 0), (self.old.broadcasts, 0)),
        )

    def _begin(self, record: Record) -> None:
        new, each = self.new, record.connection
        is_current = record.epoch == b"%d" % new.epoch
        joined = max(record.groups["g"][0], record.broadcasts[0]) if is_current else 0
        socket = Sockets(record.turn, None, list(record.inbox), record.received, joined=joined)
        socket.replies = record.replies[0] if is_current else 0
        gaps = missed(record, b"%d" % new.epoch, broadcasts=(new.broadcasts, 0), replies=(new.replies, 0))
        if any(gaps):
            socket.gaps, socket.late = gaps, []
        if each in new.sockets:
            raise Broken(f"{each} begins twice")
        new.sockets[each] = socket
        self._advance(new, each, socket)

    def _resume(self, each: str, socket: Sockets) -> None:
        late, socket.late, socket.is_suspended = socket.late or [], None, False
        if not self.faults.drops_while_suspended:
            self._deliver(each, socket, late)
        self._advance(self.old, each, socket)

    # What must hold.

    def _close_abandoned(self) -> None:
        """The kernel closes a connection of which no process has a descriptor."""
        held = {*self.old.sockets, *self.new.sockets, *self.new.records}
        held |= {each.connection for each in self.to_new if isinstance(each, Record)}
        for each, client in self.clients.items():
            if each not in held and not client.closed:
                client.closed = 1006

    def _check(self) -> None:
        if both := self.old.sockets.keys() & self.new.sockets.keys():
            raise Broken(f"{both} have two owners")
        for each, client in self.clients.items():
            self._check_order(each, client)
            if self.byes[each] > 1 and not self.was_forgotten:
                raise Broken(f"{each}: its disconnect ran twice")
            if self.byes[each] and not client.closed and not self.faults.controller_reaps_new:
                raise Broken(f"{each}: its disconnect ran, and it lives")

    def _check_order(self, each: str, client: Client) -> None:
        for kind in ("echo",) if self.was_forgotten else ("echo", "said", "post"):
            numbers = [int(text[len(kind) :]) for text in client.got if text.startswith(kind)]
            if numbers != list(range(1, len(numbers) + 1)):
                raise Broken(f"{each} got {client.got}")
        if not self.was_forgotten and max(Counter(client.got).values(), default=1) > 1:
            raise Broken(f"{each} got {client.got}")

    def check_end(self) -> None:
        """Nobody is bound to do anything any more: nothing may wait. Raises Broken."""
        for each, client in self.clients.items():
            socket = self.old.sockets.get(each) or self.new.sockets.get(each)
            if client.closed:
                if socket or (self.byes[each] != 1 and not self.was_forgotten):
                    raise Broken(f"{each} was closed with {client.closed}: {self.byes[each]} disconnects")
                continue
            if socket is None or socket.is_suspended or socket.inbox or socket.in_flight or client.unread:
                raise Broken(f"{each} waits for ever")
            echoes = sum(text.startswith("echo") for text in client.got)
            said, posts = (sum(text.startswith(kind) for text in client.got) for kind in ("said", "post"))
            missing = said != self.spoken or posts != client.posted
            if echoes != client.sent or (missing and not self.was_forgotten):
                raise Broken(f"{each} got {client.got} of {client.sent}, {self.spoken} and {client.posted}")
        if self.new.records or (self.giver.sent and self.old.is_alive):
            raise Broken("a record waits for ever")


def explore(world: World, most: int = 1_000_000) -> tuple[int, int]:
    """Try every order of moves; returns how many states and ends there are. Raises Broken, with the moves."""
    came: dict[bytes, tuple[bytes, Entry] | None] = {world.key(): None}
    waiting, ends = [world.key()], 0
    while waiting:
        following = []
        for key in waiting:
            here: World = pickle.loads(key)  # noqa: S301 - our own
            must, may = list(here.must()), list(here.may())
            try:
                if not must:
                    ends += 1
                    here.check_end()
                for move in (*must, *may):
                    there: World = pickle.loads(key)  # noqa: S301
                    there.do(move)
                    if (reached := there.key()) not in came:
                        came[reached] = (key, move)
                        following.append(reached)
            except AssertionError as error:
                raise Broken(f"{error}, after {way(came, key)}, then {locals().get('move')}") from error
            assert len(came) <= most, "too many states"
        waiting = following
    return len(came), ends


def way(came: dict[bytes, tuple[bytes, Entry] | None], key: bytes) -> list[str]:
    """Return the moves that led to a state."""
    moves: list[str] = []
    while step := came[key]:
        key, move = step
        moves.append(" ".join(map(str, move)))
    return moves[::-1]
