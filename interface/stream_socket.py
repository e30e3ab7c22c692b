"""One WebSocket of an ASGI application: it stays with the worker that took its handshake, and ends with it.

Frames pass both ways as they come, each numbered, so that after a cut connection to Redis nothing is lost or repeated.
A side may send as much ahead of the other as an inbox holds; then it waits.
"""

import asyncio
from typing import Protocol

from asgictl.config import Limits
from asgictl.interface.affinity import Route
from asgictl.interface.edge import ClientSocket
from asgictl.layers import flow_control
from asgictl.layers.base import Answered, Position
from asgictl.layers.flow_control import FRAME_BYTES, OrderedReceiver, OrderedSender, weight
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.messages import (
    INTERNAL_ERROR,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frame,
    Frames,
    Gone,
    Incoming,
    Reply,
    Scope,
    Want,
    WorkerMessage,
    encode_scope,
)


class Host(Protocol):
    """What holds the stream sockets of one interface; as socket.Host, and with a way to send messages to workers."""

    limits: Limits
    rejections: Rejections

    def submit(self, socket: "StreamSocket", event: Connect) -> None: ...

    def skip(self, socket: "StreamSocket") -> None: ...

    def closed(self, socket: "StreamSocket") -> None: ...

    def post(self, inbox: str, message: WorkerMessage, answered: Answered) -> None: ...


class StreamSocket:
    """A SocketHandler. Make one, then open() it."""

    route: Route | None = None
    repeatable = True  # until its handshake is answered it may go to another worker

    def __init__(self, id: str, scope: Scope, pool: str, host: Host, client: ClientSocket) -> None:
        self.id = id
        self.pool = pool
        self.inbox: str = ""
        self._entry = b""
        self._event = Connect(id, 1, 1, encode_scope(scope), b"")
        self._host = host
        self._is_answered = False
        self._listener: tuple[str, bytes] | None = None  # inbox and entry of who waits to hear, before it answers
        self._ended: tuple[int, str] | None = None  # how, once the client has gone
        self._client = client
        self._sender: OrderedSender[Incoming | Credit | Ended] = OrderedSender(self._add, self.died)
        self._heard = OrderedReceiver(self.died)
        self._ahead = 0  # bytes that the application has not taken
        self._window = flow_control.Window(host.limits.outbox_bytes, 4, is_granted=True)  # of the application's frames
        self._untaken = 0  # bytes of them that the client has not taken yet
        self._room: asyncio.TimerHandle | None = None  # until which the client is not read
        self._deadline: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Have the handshake answered."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._host.limits.connect_deadline_seconds, self._too_late)
        self._host.submit(self, self._event)

    def receive(self, frame: Frame) -> None:
        """Send a message on to the application; while too much is ahead of it the client is not read."""
        limits = self._host.limits
        self._sender.send(Incoming(self.id, self._entry, frame, self._sender.next_sequence()))
        self._ahead += weight(frame)
        if self._ahead > limits.inbox_bytes and self._room is None:
            self._client.pause()
            self._room = asyncio.get_running_loop().call_later(limits.inbox_deadline_seconds, self._no_room)

    def resumed(self) -> None:
        """The client has taken what was sent: grant the application more."""
        self._window.take(self._untaken)
        self._untaken = 0
        if due := self._window.due():
            self._sender.send(Credit(self.id, self._entry, due, self._sender.next_sequence()))

    def left(self, code: int, reason: str) -> None:
        """The client has left, or was closed: let the worker know."""
        for timer in (self._deadline, self._room):
            if timer:
                timer.cancel()
        self._ended = code, reason
        if self.inbox:
            self._sender.send(Ended(self.id, self._entry, code, reason, self._sender.next_sequence()))
        if self._is_answered:
            self._host.closed(self)
        else:
            self._tell_listener()
            self._host.skip(self)

    def is_answered_by(self, reply: Reply) -> bool:
        """Whether this ends the handshake; of two workers that answer it, the first is heard."""
        return isinstance(reply, Done) and not self._is_answered

    def answer(self, reply: Reply, position: Position | None) -> None:
        """Apply what the worker says."""
        if isinstance(reply, Done):
            self._answer_handshake(reply)
        elif isinstance(reply, Want) and not self._is_answered:
            self._listener = reply.inbox, reply.entry
            if self._ended is not None:
                self._tell_listener()
        elif not isinstance(reply, Want | Frames | Closed) or reply.entry != self._entry:
            pass  # of another worker, which hears that it is not the one
        elif self._heard.is_next(reply.sequence):
            self._obey(reply)

    def _obey(self, reply: Want | Frames | Closed) -> None:
        if isinstance(reply, Closed):
            self._close(Close(reply.code, reply.reason))
        elif isinstance(reply, Frames):
            for frame in reply.frames:
                self._client.frame(frame)
                self._untaken += len(frame) + FRAME_BYTES
            if not self._client.waiting_bytes:
                self.resumed()
        else:
            self._ahead -= reply.size
            if self._ahead <= self._host.limits.inbox_bytes // 2:
                self._wake()

    def lost(self, started: bool) -> Connect | None:
        """The worker died before it answered the handshake."""
        attempt = self._event.attempt + started
        if self._ended is None and attempt <= self._host.limits.attempts:
            self._event = Connect(self.id, 1, attempt, self._event.scope, b"")
            return self._event
        self._is_answered = True
        self._close(Close(INTERNAL_ERROR, "", 500))
        if self._ended is not None:
            self._host.closed(self)
        return None

    def refused(self, for_good: bool) -> bool:
        """Redis takes none: the handshake waits, until its deadline, which is shorter than `for_good`."""
        return True

    def died(self) -> None:
        """The worker that had this socket is no more, or Redis has lost a part of what they said to each other."""
        self._close(Close(SERVICE_RESTART, ""))

    def skipped(self) -> None:
        """No worker had taken the handshake."""
        self._host.closed(self)

    def _answer_handshake(self, reply: Done) -> None:
        if self._is_answered:
            if reply.inbox:  # of two workers that answer a handshake, the first has the socket
                self._host.post(reply.inbox, Gone(self.id, reply.entry), lambda _answer: None)
            return
        self._is_answered = True
        if self._deadline:
            self._deadline.cancel()
        self.inbox, self._entry = reply.inbox, reply.entry
        if self._ended is not None:  # the client left while it was answered
            self.left(*self._ended)
        elif reply.accept is not None:
            self._client.accept(reply.accept)
        elif reply.close is not None:
            self._close(reply.close)

    def _no_room(self) -> None:
        self._host.rejections.add("sockets closed with 1013: no worker took the frames in time")
        self._close(Close(TRY_AGAIN_LATER, "the application took no messages"))

    def _close(self, close: Close) -> None:
        """Close after what was sent before; a client that is held back is read on, so as to hear of the end."""
        self._client.close(close)
        self._wake()

    def _wake(self) -> None:
        if self._room:
            self._room.cancel()
            self._room = None
            self._client.resume()

    def _add(self, message: Incoming | Credit | Ended, answered: Answered) -> None:
        self._host.post(self.inbox, message, answered)

    def _too_late(self) -> None:
        self._host.rejections.add("handshakes rejected with 503: no worker answered in time")
        self._close(Close(TRY_AGAIN_LATER, "", 503))

    def _tell_listener(self) -> None:
        if self._listener:
            inbox, entry = self._listener
            self._host.post(inbox, Gone(self.id, entry), lambda _answer: None)
