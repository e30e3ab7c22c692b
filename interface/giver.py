"""The old process's end of a hand-over: suspends sockets and sends them, as handover.Predecessor decides."""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from time import time

from asgictl.interface.consumer_socket import ConsumerSocket
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.interface.handover import HANDOVER_SECONDS, Action, Do, Forget, Old, Predecessor, Resume, Send, Transfer
from asgictl.interface.handover_common import Common
from asgictl.interface.handover_line import Line
from asgictl.wire.handover import MOST_BYTES, FromNew, decode_from_new, encode_frame

LOOK_SECONDS = 0.01  # between two looks at sockets that could not be suspended
REDIS_AWAY_SECONDS = 3.0  # of Redis's silence, after which the time of a hand-over stands still
ARRIVING = "arriving"  # stands for the connections that were accepted and may become sockets


class Giver:
    """The old process's end of one identity's hand-over. line: to the new process."""

    def __init__(self, common: Common, identity: str, line: socket.socket) -> None:
        self._common, self._identity = common, identity
        self._forwarder, self._layer = common.forwarder, common.layer
        self._decides = Predecessor(identity)
        self._waiting: deque[str] = deque()  # sockets that are to be suspended
        self._suspended: dict[str, tuple[bytes, int]] = {}  # each one's record in its frame, and its descriptor
        self._refused: set[str] = set()  # by the new process, or too large for it
        self._closing: set[str] = set()  # what did not move, and is closed
        self._line: Line[FromNew] = Line(line, decode_from_new, self._heard, self._cut)

    async def give(self) -> None:
        """Hand over; return once no more sockets will be."""
        self._waiting.extend(each.id for each in self._forwarder.of_identity(self._identity))
        replies = self._layer.replies_read(self._identity)
        self._do(self._decides.offer([*self._waiting, ARRIVING], self._layer.epoch, replies))
        passed = 0.0
        while self._is_under_way:
            self._move()
            if self._decides.state is Old.MOVING and not self._common.edge.is_arriving:
                self._do(self._decides.ended(ARRIVING))
            self._count(time() + HANDOVER_SECONDS - passed)
            await asyncio.sleep(LOOK_SECONDS)
            if self._layer.silent_seconds < REDIS_AWAY_SECONDS:
                passed += LOOK_SECONDS
            has_only_refused = self._decides.state is Old.MOVING and self._decides.held == self._refused
            if self._is_under_way and (passed >= HANDOVER_SECONDS or has_only_refused):
                self._do(self._decides.late())
        self._count(0)

    @property
    def _is_under_way(self) -> bool:
        return self._decides.state in {Old.OFFERED, Old.MOVING}

    def _count(self, until: float) -> None:
        figures = self._forwarder.figures
        figures.waiting, figures.until = len(self._decides.held - {ARRIVING}) if until else 0, until

    def _move(self) -> None:
        """Suspend and send as many sockets as may be on their way; those that cannot be yet begin no more turns."""
        for _ in range(len(self._waiting)):
            if not self._decides.takes_more:
                return
            connection = self._waiting.popleft()
            socket = self._forwarder.sockets.get(connection)
            if not isinstance(socket, ConsumerSocket) or not isinstance(socket.client, WebSocketProtocol):
                continue
            replies = self._layer.replies_read(self._identity)
            suspended = socket.suspend(socket.client, self._layer.epoch, replies, self._layer.broadcasts_read)
            if suspended is None:
                self._forwarder.held_back.add(connection)
                self._waiting.append(connection)
            elif len(frame := encode_frame(suspended.record)) > MOST_BYTES:
                self._stay(socket, socket.client)
            else:
                self._suspended[connection] = frame, suspended.descriptor
                self._do(self._decides.quiet(connection))

    def opened(self, connection: str) -> None:
        """One more socket was accepted."""
        self._decides.opened(connection)
        self._waiting.append(connection)

    def closed(self, connection: str) -> None:
        """A socket's last turn is done, or the new process has it."""
        self._refused.discard(connection)
        if connection in self._decides.held:
            self._do(self._decides.ended(connection))

    def fenced(self) -> None:
        """Others have taken the identity for dead."""
        self._do(self._decides.fenced())

    def _heard(self, message: FromNew, _descriptor: int | None) -> None:
        self._do(self._decides.heard(message))
        self._move()

    def _cut(self) -> None:
        self._do(self._decides.cut())

    def _do(self, does: Sequence[Do]) -> None:
        for do in does:
            if isinstance(do, Send):
                self._line.send(encode_frame(do.message))
            elif isinstance(do, Transfer):
                self._line.send(*self._suspended[do.connection])
            elif isinstance(do, Forget):
                socket, client = self._suspended_socket(do.connection)
                self._forwarder.figures.moved += 1
                self._forwarder.give(socket, client)
            elif isinstance(do, Resume):
                self._stay(*self._suspended_socket(do.connection))
            elif isinstance(do, Action):
                self._act(do)

    def _suspended_socket(self, connection: str) -> tuple[ConsumerSocket, WebSocketProtocol]:
        del self._suspended[connection]
        socket = self._forwarder.sockets[connection]
        assert isinstance(socket, ConsumerSocket)  # noqa: S101 - _move() looked
        assert isinstance(socket.client, WebSocketProtocol)  # noqa: S101
        return socket, socket.client

    def _stay(self, socket: ConsumerSocket, client: WebSocketProtocol) -> None:
        """Go on with a socket that the new process does not take."""
        self._forwarder.figures.refused += 1
        self._refused.add(socket.id)
        self._forwarder.held_back.discard(socket.id)
        socket.resume(client)

    def _act(self, action: Action) -> None:
        if action in {Action.KEEP_REPLIES, Action.TRIM_REPLIES}:
            self._layer.keep_replies(self._identity, keeps=action is Action.KEEP_REPLIES)
        elif action in {Action.CLAIM, Action.DISCLAIM}:
            self._common.claim(self._identity, claims=action is Action.CLAIM)
        elif action is Action.UNFOLLOW:
            self._layer.unfollow(self._identity)
        elif action is Action.REAP:
            self._common.reap(self._identity, lambda: self._decides.held, lambda: None)
        elif action is Action.DROP:
            self._suspended.clear()
            self._layer.unfollow(self._identity)
            self._forwarder.drop(self._identity)
        elif action is Action.CLOSE:  # the server's drain closes them: until then they go on
            for socket in self._forwarder.of_identity(self._identity):
                if socket.id not in self._decides.sent | self._closing:
                    self._closing.add(socket.id)
                    self._forwarder.figures.overdue += 1
                    self._forwarder.held_back.discard(socket.id)
                    socket.advance()
