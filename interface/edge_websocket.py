"""WebSocket (RFC 6455) for uvicorn's server: a message reaches its socket by a plain call, and a frame the transport.

websockets' ServerProtocol judges handshakes, and all frames but the plain ones: whole messages of one frame, pings and
pongs. It gets each frame whole, and is kept only while a fragmented message is under way or an extension is in use:
thousands of idle sockets have none.

A client may have its server do no more than this: so many fragments of a message are taken; a message's size is counted
at the header of each of its frames; the newest ping alone is answered while the client does not read (section 5.5.3);
nothing is parsed before the handshake is answered.
"""

import logging
import os
from typing import Any

from msgspec.structs import replace
from websockets.datastructures import Headers as WebSocketHeaders
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close as CloseFrame
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # an interpreter for which there is no wheel
    from websockets.utils import apply_mask

from asgictl.interface import limits
from asgictl.interface.edge import SocketHandler
from asgictl.interface.edge_connection import EdgeConnection
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
    frame,
    header_of,
    message,
)
from asgictl.telemetry.access_log import UNLOGGED, WebSocketLog
from asgictl.wire.error_responses import NO_ANSWER_IN_TIME, RETRY_AFTER, plain_text
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
# permessage-deflate as uvicorn offers it, where its user wants it.
DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


class WebSocketProtocol(EdgeConnection):
    """A client's connection from its handshake on: a ClientSocket."""

    __slots__ = (
        "_config",
        "_fragments",
        "_handler",
        "_is_closing",
        "_is_paused_by_handler",
        "_needed",
        "_partial",
        "_ping",
        "_pong",
        "_protocol",
        "_response",
        "_size",
        "is_accepted",
        "is_open",
        "log",
    )

    def __init__(self, edge: Any, state: Any, config: Any) -> None:
        super().__init__(edge, state)
        self._config = config
        self.is_open = True
        self.is_accepted = False
        self.log: WebSocketLog = UNLOGGED
        self._is_closing = False  # a close frame was sent
        self._is_paused_by_handler = False
        self._handler: SocketHandler | None = None
        self._response: Response | None = None  # to the handshake, until it is answered
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
        self.is_secure, self.is_held = http.is_secure, http.is_held
        self.state.connections.add(self)
        self.transport.set_protocol(self)
        if http.is_full:  # of a response that the client has not taken
            http.is_full = False
            self.pause_writing()
        protocol = ServerProtocol(
            extensions=[DEFLATE] if self._config.ws_per_message_deflate else None,
            max_size=self._config.ws_max_size,
            logger=logger,
        )
        given = [(name.decode(), value.decode("latin-1")) for name, value in scope.headers if name != b"upgrade"]
        headers = WebSocketHeaders([*given, ("upgrade", "websocket")])  # framing.is_handshake has found it in a list
        response = protocol.accept(Request(target, headers))
        if response.status_code != 101:
            kept = [(n.lower().encode(), v.encode("latin-1")) for n, v in response.headers.raw_items() if n != "Date"]
            status = response.status_code
            if (asked := headers.get_all("sec-websocket-version")) and asked != ["13"]:  # RFC 6455, section 4.2.2
                status, kept = 426, [*kept, (b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
            self._refuse(status, kept, bytes(response.body or b""))
            return
        self._response = response
        if protocol.extensions:  # the parser of the one that judged the handshake would wait for it
            self._protocol = self._open_protocol()
            self._protocol.extensions = protocol.extensions
        self.edge.handshake.start(self, self.edge.loop.time())
        self._unread = rest
        self._handler = self.edge.backend.websocket(_with_subprotocols(scope), self)
        self.feed()

    # A ClientSocket's calls.

    def accept(self, accept: Accept) -> None:
        """Open the socket, unless the client has left."""
        response = self._response
        if not self.is_open or response is None:
            return
        self.is_accepted, self._response = True, None
        self.edge.handshake.stop(self)
        self.log.open()
        headers = [(n.encode(), v.encode()) for n, v in response.headers.raw_items() if n != "Date"]
        if accept.subprotocol:
            headers.append((b"Sec-WebSocket-Protocol", accept.subprotocol.encode()))
        writer = ResponseWriter(is_head=False, is_old=False, closes=False)
        self.write(writer.head(101, headers + accept.headers, self.defaults(), b"", more=False))
        self.edge.ping.start(self, self.edge.loop.time())
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
            protocol = self._protocol = self._open_protocol()
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and not self._is_discarding:
                self._take_judged(protocol, event)
        if protocol.parser_exc is not None and not self._is_discarding:
            assert protocol.close_sent is not None  # noqa: S101 - it has just failed an open connection
            self._fail(protocol.close_sent.code, protocol.close_sent.reason)
        elif not (self._fragments or protocol.extensions):
            self._protocol = None

    def _open_protocol(self) -> ServerProtocol:
        return ServerProtocol(state=OPEN, max_size=self._config.ws_max_size, logger=logger)

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
        self.is_open, self._response = False, None
        self.edge.handshake.stop(self)
        self.log.end(status)
        if status == 503 and not headers:
            headers = [RETRY_AFTER]
        if not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
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
            logger.error("a WebSocket was to be closed with %s: %s", code, error)
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
        self._pong = b""
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
        """Close with 1012, or refuse the handshake; uvicorn calls it."""
        if self.is_open:
            self.close(Close(SERVICE_RESTART, "", 503))


def _with_subprotocols(scope: Scope) -> Scope:
    """Return a handshake's scope, as it is told to the application: a WebSocket has no method."""
    offered = [value for name, value in scope.headers if name == b"sec-websocket-protocol"]
    names = [each.strip().decode("latin-1") for value in offered for each in value.split(b",")]
    return replace(scope, method="", subprotocols=[each for each in names if each])
