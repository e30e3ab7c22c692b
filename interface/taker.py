"""The new process's end of a hand-over: keeps what comes and serves it, as handover.Successor decides."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from asgictl.errors import WireError
from asgictl.interface.consumer_socket import ConsumerSocket
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.interface.handover import Action, Begin, Do, Gap, Gaps, New, Send, Successor
from asgictl.interface.handover_common import Common
from asgictl.interface.handover_line import Line
from asgictl.layers.base import Position
from asgictl.wire.handover import NOTHING, FromOld, Offer, Record, decode_from_old, encode_frame
from asgictl.wire.messages import Frames, Reply, decode_scope

logger = logging.getLogger("asgictl.handover")


class Taker:
    """The new process's end of one identity's hand-over, and what it has taken. line: to the old process.

    over: called once nothing of it is left here.
    """

    def __init__(self, common: Common, line: socket.socket, over: Callable[["Taker"], None]) -> None:
        self._common, self._on_over = common, over
        self._forwarder, self._layer = common.forwarder, common.layer
        self._decides = Successor()
        self._kept: dict[str, tuple[Record, socket.socket, ConsumerSocket, WebSocketProtocol]] = {}
        self._begun: set[str] = set()  # and not ended
        self._passed: dict[str, Position] = {}  # the newest frames that came for a socket before its record
        self._fetching = 0  # sockets that are still to be given what they have missed
        self._is_following = self._is_reaping = False
        self._offer: Offer
        self._line: Line[FromOld] = Line(line, decode_from_old, self._heard, self._cut)

    @property
    def identity(self) -> str:
        return self._decides.identity

    @property
    def is_settled(self) -> bool:
        """Whether nothing of the hand-over is under way any more."""
        is_busy = self._is_following or self._fetching or self._is_reaping
        return self._decides.state in {New.SOLE, New.OVER} and not is_busy

    def closed(self, connection: str) -> None:
        """A socket's last turn is done, or another process has it."""
        self._begun.discard(connection)
        self._settle()

    def fenced(self) -> None:
        """Others have taken the identity for dead."""
        self._do(self._decides.fenced())

    def _heard(self, message: FromOld, descriptor: int | None) -> None:
        if isinstance(message, Offer):
            self._offer = message
        is_usable = self._keep(message, descriptor) if isinstance(message, Record) else True
        self._do(self._decides.heard(message, is_usable))

    def _keep(self, record: Record, descriptor: int | None) -> bool:
        """Keep what is needed to serve a socket, untouched; returns whether it can be served."""
        if descriptor is None:
            return False
        connection, edge = socket.socket(fileno=descriptor), self._common.edge
        protocol = self._common.make_protocol()
        try:
            taken = ConsumerSocket.of(record, self._forwarder, protocol)
        except WireError as error:
            logger.warning("rejected a socket in a hand-over: %s", error)
            taken = None
        if taken is None or len(edge.connections) + len(self._kept) >= edge.capacity:
            connection.close()
            return False
        self._kept[record.connection] = (record, connection, taken, protocol)
        return True

    def _cut(self) -> None:
        self._do(self._decides.cut())

    def _do(self, does: Sequence[Do]) -> None:
        for do in does:
            if isinstance(do, Send):
                self._line.send(encode_frame(do.message))
            elif isinstance(do, Begin):
                self._begun.add(do.connection)
                self._fetching += 1  # here: _settle() may come before its task runs
                self._common.run(self._begin(*self._kept.pop(do.connection)))
            elif isinstance(do, Action):
                self._act(do)
        if self._decides.state is New.OVER:
            self._let_go()
        self._settle()

    def _act(self, action: Action) -> None:
        if action is Action.FOLLOW:
            self._is_following = True
            self._common.run(self._follow())
        elif action is Action.UNFOLLOW:
            self._layer.unfollow(self.identity)
        elif action is Action.CLAIM:
            self._common.claim(self.identity, claims=True)
        elif action is Action.REAP:
            self._is_reaping = True
            self._common.reap(self.identity, lambda: self._begun, self._reaped)
        elif action is Action.DROP:
            self._layer.unfollow(self.identity)
            self._forwarder.drop(self.identity)

    def _reaped(self) -> None:
        self._is_reaping = False
        self._settle()

    async def _follow(self) -> None:
        offer = self._offer
        await self._common.again(lambda: self._layer.follow(offer.identity, offer.epoch, offer.replies, self._hear))
        self._is_following = False
        if self._decides.state is New.OVER:  # it was withdrawn meanwhile
            self._layer.unfollow(offer.identity)
        self._do(self._decides.followed())

    def _hear(self, reply: Reply, position: Position | None, entry: Position) -> None:
        if not self._forwarder.hear_moved(reply, position, entry) and isinstance(reply, Frames):
            self._passed[reply.connection] = entry

    async def _begin(
        self, record: Record, connection: socket.socket, taken: ConsumerSocket, protocol: WebSocketProtocol
    ) -> None:
        """Serve a socket that is ours now, and fetch what it has missed."""
        gaps: list[Gaps] = []

        def begin() -> None:
            self._forwarder.take(taken, scope)
            read, passed = self._layer.broadcasts_read, self._passed.pop(record.connection, NOTHING)
            gaps.append(taken.restore(record, self._layer.epoch, broadcasts=read, replies=passed))

        scope = decode_scope(record.scope)
        protocol.restore(scope, record.unread, taken, begin)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
            (missed,) = gaps
            if any(missed):
                await self._common.again(lambda: self._catch_up(taken, *missed))
        finally:
            self._fetching -= 1
            self._settle()

    async def _catch_up(self, taken: ConsumerSocket, broadcasts: Gap | None, replies: Gap | None) -> None:
        found = await self._layer.broadcasts_between(*broadcasts) if broadcasts else []
        said = await self._layer.replies_between(self.identity, *replies) if replies else []
        taken.caught_up(found, said)

    def _settle(self) -> None:
        """Once all is ours: trim its replies, and leave nothing of it behind when its last socket has ended."""
        if self._decides.state is not New.SOLE or not self.is_settled:
            return
        self._passed.clear()
        self._layer.keep_replies(self.identity, keeps=False)
        if not (self._begun or self._kept):
            self._over()
            if self.identity in self._layer.followed_identities:  # else another process has it by now
                self._common.run(self._common.again(lambda: self._layer.end_identity(self.identity)))

    def _over(self) -> None:
        self._common.claim(self.identity, claims=False)
        self._on_over(self)

    def _let_go(self) -> None:
        for _, connection, _, _ in self._kept.values():
            connection.close()
        self._kept.clear()
        self._over()
