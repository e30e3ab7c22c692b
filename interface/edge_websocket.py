"""WebSocket (RFC 6455) for uvicorn's server: a message reaches its socket by a plain call, and a frame the transport.

websockets' ServerProtocol judges all frames but the plain ones: whole messages of one frame, pings and pongs. It gets
each frame whole, and is kept only while a fragmented message is under way or an extension is in use: thousands of idle
sockets have none.

A client may have its server do no more than this: so many fragments of a message are taken; a message's size is counted
at the header of each of its frames; the newest ping alone is answered while the client does not read (section 5.5.3);
nothing is parsed before the handshake is answered.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Close as CloseFrame
from websockets.frames import CloseCode, Frame, Opcode
from websockets.server import ServerProtocol

from asgictl.interface import limits
from asgictl.interface.edge import SocketHandler, Standing
from asgictl.interface.edge_connection import EdgeConnection
from asgictl.interface.edge_request import with_subprotocols
from asgictl.interface.framing import (
    BINARY,
    CLOSE,
    CONTROL,
    CONTROL_BYTES,
    MASKED,
    PING,
    PONG,
    TEXT,
    ResponseWriter,
    apply_mask,
    frame,
    header_of,
    message,
)
from asgictl.interface.websocket_handshake import judge, open_protocol, refusal
from asgictl.telemetry.access_log import UNLOGGED, WebSocketLog
from asgictl.wire.error_responses import NO_ANSWER_IN_TIME, plain_text
from asgictl.wire.messages import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    Accept,
    Close,
    Headers,
    Scope,
)
from asgictl.wire.messages import Frame as Message

logger = logging.getLogger("asgictl.edge")
NO_STATUS = 1005  # what uvicorn says of a connection that was cut; RFC 6455 would have 1006
_PLAIN = frozenset({TEXT, BINARY, PING, PONG})


class WebSocketProtocol(EdgeConnection):
    """A client's connection from its handshake on: a ClientSocket."""

    __slots__ = (
        "_answer",
        "_begin",
        "_config",
        "_fragments",
        "_handler",
        "_is_closing",
        "_is_paused_by_handler",
        "_is_suspended",
        "_needed",
        "_partial",
        "_ping",
        "_pong",
        "_protocol",
        "_size",
        "is_accepted",
        "is_open",
        "log",
    )

    def __init__(self, edge: Any, state: Any, config: Any) -> None:
        super().__init__(edge, state)
        self._config = config
        self.is_open: bool = True
        self.is_accepted: bool = False
        self.log: WebSocketLog = UNLOGGED
        self._is_closing = False  # a close frame was sent
        self._is_paused_by_handler = False
        self._is_suspended = False  # it may be another process's by now
        self._handler: SocketHandler | None = None
        self._begin: Callable[[], None]
        self._answer: Headers | None = None  # to the handshake, until it is accepted or refused
        self._protocol: ServerProtocol | None = None
        self._partial = bytearray()  # a frame that is not whole
        self._needed = 0  # bytes of it, as far as they are known
        self._fragments: list[bytes] | None = None  # of a message that is not whole; the first is its opcode's
        self._size = 0  # of them
        self._ping = b""  # that was sent and waits for its pong
        self._pong = b""  # that waits until the client reads

    def take_over(self, http: EdgeConnection, scope: Scope, target: str, rest: bytes) -> None:
        """Answer the handshake of a connection on which HTTP was spoken, or have it answered."""
        self.transport, self.client, self.server = http.transport, scope.client, http.server
        self.is_secure, self.is_held, self.home = http.is_secure, http.is_held, http.home
        self.state.connections.add(self)
        self.transport.set_protocol(self)
        if http.is_full:  # of a response that the client has not taken
            http.is_full = False
            self.pause_writing()
        answer = judge(scope, target, deflates=self._config.ws_per_message_deflate)
        if answer.status != 101:
            self._refuse(answer.status, answer.headers, answer.body)
            return
        self._answer = answer.headers
        if answer.extensions:  # the parser of the one that judged the handshake would wait for it
            self._protocol = open_protocol(self._config.ws_max_size, answer.extensions)
        self.edge.handshake.start(self, self.edge.loop.time())
        self._unread = rest
        self._handler = self.edge.backend.websocket(with_subprotocols(scope), self)
        self.feed()

    def suspend(self) -> Standing | None:
        """Neither read nor ping until wake(), if this stands between two messages."""
        if self._protocol or not (self.is_open and self.is_accepted and self.is_settled):
            return None
        self._stop_pings()
        if not self.is_held:
            self.transport.pause_reading()
        self._is_suspended = True
        return Standing(self.fileno(), bytes(self._partial) + self._unread[self._parsed :])

    def wake(self) -> None:
        """Go on as before suspend()."""
        self._is_suspended = False
        self._go_on()
        if not self.is_held:
            self.transport.resume_reading()

    def _go_on(self) -> None:
        self.edge.ping.start(self, self.edge.loop.time())
        if self.edge.is_draining:
            self.shutdown()

    def let_go(self) -> None:
        """Close this process's descriptor alone."""
        self._handler = None  # which knows this: the collector would find them late
        super().let_go()

    def restore(self, scope: Scope, unread: bytes, handler: SocketHandler, begin: Callable[[], None]) -> None:
        """Be a connection that stands suspended in another process, once the loop makes this its protocol.

        begin: called then, before anything is parsed.
        """
        self.client, self.server, self.is_secure = scope.client, scope.server, scope.scheme == "wss"
        self.is_accepted, self._handler, self._unread, self._begin = True, handler, unread, begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on where another process stood still: any other connection is taken over from HTTP."""
        super().connection_made(transport)
        self._begin()
        del self._begin  # with the record
        self.log.go_on()
        self._go_on()
        self.feed()

    # A ClientSocket's calls.

    def accept(self, accept: Accept) -> None:
        """Open the socket, unless the client has left."""
        headers = self._answer
        if not self.is_open or headers is None:
            return
        self.is_accepted, self._answer = True, None
        self.edge.handshake.stop(self)
        self.log.open()
        if accept.subprotocol:
            headers = [*headers, (b"Sec-WebSocket-Protocol", accept.subprotocol.encode())]
        writer = ResponseWriter(is_head=False, is_old=False, closes=False)
        self.write(writer.head(101, headers + accept.headers, self.defaults(), b"", more=False))
        self._go_on()
        self.feed()

    def frame(self, content: Message) -> None:
        """Send a message as one frame; nothing happens when the socket is not open."""
        if self.is_open and self.is_accepted:
            self._send_pong()  # its ping came first
            if self._protocol is None or not self._protocol.extensions:
                self.write(message(content))
            else:
                if isinstance(content, str):
                    self._protocol.send_text(content.encode())
                else:
                    self._protocol.send_binary(content)
                self.write(b"".join(self._protocol.data_to_send()))

    def close(self, close: Close) -> None:
        """Close after what was sent before, or refuse the handshake."""
        if not self.is_open:
            return
        if self.is_accepted:
            self._send_close(close.code, close.reason)
        else:
            self._refuse(close.status, close.headers, close.body)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for a client that reads too slowly."""
        return self.transport.get_write_buffer_size() + self.turn_bytes if self.is_paused else 0

    def pause(self) -> None:
        """Read no frames."""
        self._is_paused_by_handler = True
        self.feed()

    def resume(self) -> None:
        """Read frames again."""
        self._is_paused_by_handler = False
        self.feed()

    # The transport's calls.

    def takes_more(self) -> bool:
        """Whether frames are read: a client has to wait for its handshake (RFC 6455, section 4.1)."""
        return self.is_accepted and not self._is_paused_by_handler

    def reads_on(self) -> bool:
        """Whether frames are read."""
        return not self._is_paused_by_handler

    def parse(self, data: bytes) -> int:
        """Parse the next bytes of frames."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return 0
            data = bytes(self._partial)
            self._partial.clear()
        at, size, left = 0, len(data), limits.FRAMES
        while at < size and not self._is_discarding:
            if self._is_paused_by_handler or not left:
                return size - at
            left -= 1
            found = header_of(data, at)
            if found is None:
                self._keep(data[at:], size - at + 1)
                break
            begin, length = found
            if length > self._room(data[at]):
                self._fail_too_large(data[at])
            elif begin + length > size:
                self._keep(data[at:], begin + length - at)
                break
            else:
                self._take(data, at, begin, begin + length)
            at = begin + length
        return 0

    def _keep(self, data: bytes, needed: int) -> None:
        self._partial += data
        self._needed = needed

    def _room(self, first: int) -> int:
        """Return how large a frame may be, by its first byte: a control frame, or what is left of a message."""
        if first & CONTROL:
            return CONTROL_BYTES
        most: int = self._config.ws_max_size
        return most - self._size

    def _fail_too_large(self, first: int) -> None:
        if first & CONTROL:
            self._fail(CloseCode.PROTOCOL_ERROR, "control frame too long")
        else:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"over {self._config.ws_max_size} bytes")

    def _take(self, data: bytes, at: int, begin: int, end: int) -> None:
        """Take a whole frame."""
        first = data[at]
        if self._is_closing:
            if first == CLOSE:
                self.finish()
        elif not data[at + 1] & MASKED or first not in _PLAIN:
            self._judge(data[at:end])
        elif first == PING:
            self._answer_ping(apply_mask(data[begin:end], data[begin - 4 : begin]))
        elif first == PONG:
            self._take_pong(apply_mask(data[begin:end], data[begin - 4 : begin]))
        elif self._protocol is not None:
            self._judge(data[at:end])
        else:
            self._receive(first == TEXT, apply_mask(data[begin:end], data[begin - 4 : begin]))

    def _receive(self, is_text: bool, payload: bytes) -> None:
        """Hand a message on."""
        content: Message = payload
        if is_text:
            try:
                content = payload.decode()
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        if self._handler is not None and self.is_open:
            self._handler.receive(content)

    def _answer_ping(self, payload: bytes) -> None:
        if self.is_paused:
            self._pong = frame(PONG, payload)  # one is enough (RFC 6455, section 5.5.3)
        else:
            self.write(frame(PONG, payload))

    def _take_pong(self, payload: bytes) -> None:
        if self._ping and payload == self._ping:
            self._ping = b""
            self.edge.pong.stop(self)
            self.edge.ping.start(self, self.edge.loop.time())

    def _judge(self, data: bytes) -> None:
        """Have websockets judge a whole frame."""
        protocol = self._protocol
        if protocol is None:
            protocol = self._protocol = open_protocol(self._config.ws_max_size)
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and not self._is_discarding:
                self._take_judged(protocol, event)
        if protocol.parser_exc is not None and not self._is_discarding:
            assert protocol.close_sent is not None  # noqa: S101 - it has just failed an open connection
            self._fail(protocol.close_sent.code, protocol.close_sent.reason)
        elif not (self._fragments or protocol.extensions):
            self._protocol = None

    def _take_judged(self, protocol: ServerProtocol, event: Frame) -> None:
        if event.opcode is Opcode.CLOSE:
            assert protocol.close_rcvd is not None  # noqa: S101 - this was it
            self.is_open, self._is_closing = False, True
            self.write(b"".join(protocol.data_to_send()))
            self._stop_pings()
            self._leave(protocol.close_rcvd.code, protocol.close_rcvd.reason)
            self.finish()
        elif event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._take_fragment(event)

    def _take_fragment(self, event: Frame) -> None:
        if event.opcode is not Opcode.CONT:
            self._fragments = [bytes((event.opcode is Opcode.TEXT,))]
        assert self._fragments is not None  # noqa: S101 - websockets lets no other continuation pass
        self._fragments.append(bytes(event.data))
        self._size += len(event.data)
        if event.fin:
            (kind, *parts), self._fragments, self._size = self._fragments, None, 0
            self._receive(kind == b"\1", parts[0] if len(parts) == 1 else b"".join(parts))
        elif len(self._fragments) > self.edge.limits.fragments:
            self.edge.reject(limits.FRAGMENTED)
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"over {self.edge.limits.fragments} fragments")

    # Its end.

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake with a response, and close."""
        self.is_open, self._answer = False, None
        self.edge.handshake.stop(self)
        self.log.end(status)
        headers = refusal(status, headers, body)
        writer = ResponseWriter(is_head=False, is_old=False, closes=True)
        self.write(writer.head(status, headers, self.defaults(), body, more=False))
        self.end()
        self._leave_soon(ABNORMAL_CLOSURE, "")

    def _send_close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the client's."""
        self.is_open, self._is_closing, self._is_paused_by_handler = False, True, False
        try:
            payload = CloseFrame(code, reason).serialize()
        except ProtocolError as error:
            logger.error("a WebSocket cannot be closed with %s: %s", code, error)
            payload = CloseFrame(INTERNAL_ERROR, "").serialize()
        self.write(frame(CLOSE, payload))
        self._stop_pings()
        self.edge.closing.start(self, self.edge.loop.time())
        self._leave_soon(code, reason)
        self.feed()

    def _fail(self, code: int, reason: str) -> None:
        """Close because of what the client did (RFC 6455, section 7.1.7)."""
        if not self._is_closing:  # nothing follows a close frame (section 5.5.1)
            self.write(frame(CLOSE, CloseFrame(code, reason).serialize()))
        self.is_open, self._is_closing = False, True
        self._stop_pings()
        self._leave_soon(code, reason)
        self.end()

    def _stop_pings(self) -> None:
        self._ping = self._pong = b""
        self.edge.ping.stop(self)
        self.edge.pong.stop(self)

    def _leave_soon(self, code: int, reason: str) -> None:
        """Tell the handler in the loop's next turn: it may be what closes the socket."""
        self.edge.loop.call_soon(self._leave, code, reason)

    def _leave(self, code: int, reason: str) -> None:
        self.log.end(code)
        if self._handler is not None:
            handler, self._handler, self._protocol = self._handler, None, None
            handler.left(code, reason)

    def refuse_late(self) -> None:
        """Answer 503: nobody has answered the handshake in time."""
        self.edge.reject(limits.HANDSHAKE_LATE)
        self.close(Close(TRY_AGAIN_LATER, "", 503, *plain_text(NO_ANSWER_IN_TIME, 503)))

    def send_ping(self) -> None:
        """Ask for a sign of life."""
        self._ping = os.urandom(4)
        self.write(frame(PING, self._ping))
        now = self.edge.loop.time()
        (self.edge.pong if self._config.ws_ping_timeout else self.edge.ping).start(self, now)

    def miss_pong(self) -> None:
        """Close, as no sign of life has come."""
        self.edge.reject(limits.UNANSWERED_PING)
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def _send_pong(self) -> None:
        if self._pong:
            self.write(self._pong)
            self._pong = b""

    def resumed(self) -> None:
        self._send_pong()
        if self._handler is not None:
            self._handler.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_open = False
        self._partial.clear()
        self._leave(NO_STATUS if self.is_accepted else ABNORMAL_CLOSURE, "")

    def shutdown(self) -> None:
        """Have it closed in its turn; uvicorn calls it. A handshake is answered first."""
        if self.is_accepted and not self._is_suspended:
            self.edge.leaving.append(self)

    def restart(self) -> None:
        """Close with 1012."""
        self.close(Close(SERVICE_RESTART, ""))
