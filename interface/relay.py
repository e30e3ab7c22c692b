"""One WebSocket of an ASGI application: it stays with the worker that took its handshake, and ends with it.

Frames pass both ways as they come, each numbered, so that after a cut connection to Redis nothing is lost or repeated.
A side may send as much ahead of the other as an inbox holds; then it waits.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Protocol

from asgictl.configuration import Limits
from asgictl.interface.outbox import Outbox, Send
from asgictl.interface.session import ABNORMAL_CLOSURE, INTERNAL_ERROR, TRY_AGAIN_LATER, Receive, can_deny, travelling
from asgictl.layers.base import Answered, Position
from asgictl.layers.lane import Lane, Sequence
from asgictl.messages import (
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frames,
    Gone,
    Incoming,
    Letter,
    Reply,
    Want,
    encode_scope,
)
from asgictl.shed import Shed

SERVICE_RESTART = 1012  # IANA's WebSocket close codes: what a client may answer by connecting again
FRAME_BYTES = 64  # that a frame counts for beside its own, so that empty ones count too


class Host(Protocol):
    """What holds the relays of one interface; as session.Host, and with a way to send letters."""

    limits: Limits
    shed: Shed

    def submit(self, session: "Relay", event: Connect) -> None: ...

    def skip(self, session: "Relay") -> None: ...

    def closed(self, session: "Relay") -> None: ...

    def post(self, inbox: str, letter: Letter, answered: Answered) -> None: ...


class Relay:
    """Make one, then await run() in the server's task."""

    repeatable = True  # until its handshake is answered it may go to another worker

    def __init__(self, id: str, scope: MutableMapping[str, Any], pool: str, host: Host, send: Send) -> None:
        self.id = id
        self.pool = pool
        self.inbox = ""
        self._entry = b""
        self._event = Connect(id, 1, 1, encode_scope(travelling(scope)), b"")
        self._host = host
        self._is_answered = False
        self._outbox = Outbox(send, can_deny(scope), self._written)
        self._lane: Lane[Incoming | Ended] = Lane(self._add, self.died)
        self._heard = Sequence()
        self._ahead = 0  # bytes that the application has not taken
        self._behind = 0  # bytes written of which the worker was not told
        self._room: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    async def run(self, receive: Receive) -> None:
        """Serve the socket until it has ended."""
        await receive()  # websocket.connect
        loop, limits = asyncio.get_running_loop(), self._host.limits
        self._deadline = loop.call_later(limits.connect_deadline_seconds, self._too_late)
        self._host.submit(self, self._event)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                frame = message["bytes"] if text is None else text
                self._lane.send(Incoming(self.id, self._entry, frame, self._lane.next_sequence()))
                self._ahead += len(frame) + FRAME_BYTES
                if self._ahead > limits.inbox_bytes:
                    await self._wait_for_room()
            self._end(message.get("code") or ABNORMAL_CLOSURE, message.get("reason") or "")
        finally:
            self._deadline.cancel()

    def is_answered_by(self, reply: Reply) -> bool:
        """Whether this ends the handshake; of two workers that answer it, the first is heard."""
        return isinstance(reply, Done) and not self._is_answered

    def answer(self, reply: Reply, position: Position | None) -> None:
        """Apply what the worker says."""
        if isinstance(reply, Done):
            self._answer_handshake(reply)
        elif isinstance(reply, Want):
            self._ahead -= reply.size
            if self._room and not self._room.done() and self._ahead <= self._host.limits.inbox_bytes // 2:
                self._room.set_result(None)
        elif isinstance(reply, Frames) and self._heard.is_next(reply.sequence):
            for frame in reply.frames:
                self._outbox.frame(frame)
        elif isinstance(reply, Closed) and self._heard.is_next(reply.sequence):
            self._outbox.close(Close(reply.code, reply.reason))

    def lost(self, started: bool) -> Connect | None:
        """The worker died before it answered the handshake."""
        attempt = self._event.attempt + started
        if attempt > self._host.limits.attempts:
            self._outbox.close(Close(INTERNAL_ERROR, "", 500))
            return None
        self._event = Connect(self.id, 1, attempt, self._event.scope, b"")
        return self._event

    def refused(self) -> bool:
        """Redis has no room: the handshake waits, until its deadline."""
        return True

    def died(self) -> None:
        """The worker that had this socket is no more."""
        self._outbox.close(Close(SERVICE_RESTART, ""))

    def skipped(self) -> None:
        """No worker had taken the handshake."""
        self._host.closed(self)

    def _answer_handshake(self, reply: Done) -> None:
        if self._is_answered:
            if reply.inbox:
                self._host.post(reply.inbox, Gone(self.id, reply.entry), lambda _answer: None)
            return
        self._is_answered = True
        if self._deadline:
            self._deadline.cancel()
        self.inbox, self._entry = reply.inbox, reply.entry
        if reply.accept is not None and self._outbox.is_open:
            self._outbox.accept(reply.accept)
        elif reply.close is not None:
            self._outbox.close(reply.close)
        else:  # the client left while it was answered
            self._end(ABNORMAL_CLOSURE, "")

    async def _wait_for_room(self) -> None:
        """Not reading lets TCP hold the client back."""
        self._room = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(self._room, self._host.limits.inbox_deadline_seconds)
        except TimeoutError:
            self._host.shed.add("sockets closed with 1013: no worker took their frames in time")
            self._outbox.close(Close(TRY_AGAIN_LATER, "the application took no messages"))

    def _written(self, size: int) -> None:
        self._behind += size + FRAME_BYTES
        if self.inbox and self._behind >= self._host.limits.outbox_bytes // 4:
            self._host.post(self.inbox, Credit(self.id, self._entry, self._behind), lambda _answer: None)
            self._behind = 0

    def _add(self, message: Incoming | Ended, answered: Answered) -> None:
        self._host.post(self.inbox, message, answered)

    def _too_late(self) -> None:
        self._host.shed.add("handshakes that no worker answered in time, refused with 503")
        self._outbox.close(Close(TRY_AGAIN_LATER, "", 503))

    def _end(self, code: int, reason: str) -> None:
        self._outbox.is_open = False
        if self._is_answered:
            if self.inbox:
                self._lane.send(Ended(self.id, self._entry, code, reason, self._lane.next_sequence()))
            self._host.closed(self)
        else:
            self._host.skip(self)
