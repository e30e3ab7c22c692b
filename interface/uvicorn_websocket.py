"""uvicorn's WebSocket protocol, which encodes a frame once for all sockets that it is written to in a row.

It also bounds what a client can have it do: it parses in slices (see corked), takes FRAGMENTS for a message, answers
the newest ping alone while the client does not read, and parses nothing until the handshake is answered.
"""

import asyncio
from functools import lru_cache
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN

from asgictl.interface.limits import FRAGMENTS, LINGER_SECONDS
from asgictl.interface.uvicorn_http import Corked


@lru_cache(1)
def encoded(frame: str | bytes) -> bytes:
    """Return the bytes of a server's frame (RFC 6455, section 5.2). Members of a group get the same object in turn."""
    made = Frame(Opcode.TEXT, frame.encode()) if isinstance(frame, str) else Frame(Opcode.BINARY, frame)
    return made.serialize(mask=False)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Writes a frame itself where uvicorn would do nothing more with it: on an open socket without extensions."""

    transport: Corked  # type: ignore[assignment]
    _pong = b""  # that waits until the client reads

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        corked = transport if isinstance(transport, Corked) else Corked(transport)  # type: ignore[arg-type]
        corked.protocol = self
        super().connection_made(corked)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self.transport.receive(data)
        else:
            self.parse(data)  # the handshake's whole head, from the HTTP protocol

    def takes_more(self) -> bool:
        """Whether the handshake is answered, for which a client has to wait (RFC 6455, section 4.1)."""
        return self.handshake_complete

    def parse(self, data: bytes) -> None:
        """Parse the next bytes of frames."""
        self.conn.receive_data(data)
        if self.conn.events:
            self.handle_events()
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif self.conn.handshake_exc is not None and not self.handshake_initiated:
            # websockets has refused the head; uvicorn would neither say so nor survive it at its own end.
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) == FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"over {FRAGMENTS} fragments")
            self.handle_parser_exception()
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        output = b"".join(self.conn.data_to_send())
        if self.disconnected or not output:
            return
        if self.writable.is_set() or self.conn.close_sent:
            self.transport.write(output)
        else:
            self._pong = output  # one is enough (RFC 6455, section 5.5.3)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong and not self.close_sent:
            self.transport.write(self._pong)
        self._pong = b""

    def handle_parser_exception(self) -> None:
        """Close after what the client did wrong, and read on: a reset would take the close frame from the client."""
        if self.disconnected:
            return
        close = self.conn.close_sent
        assert close is not None  # noqa: S101 - websockets has just failed an open connection
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self.disconnected = True
        self.transport.discard()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    async def send(self, message: Any) -> None:
        if (
            message["type"] == "websocket.send"
            and self.handshake_complete
            and self.writable.is_set()
            and not (self.disconnected or self.close_sent or self.initial_response or self.conn.extensions)
            and self.conn.state is OPEN
        ):
            text = message.get("text")
            self.transport.write(encoded(message["bytes"] if text is None else text))
        else:
            await super().send(message)
            if message["type"] == "websocket.accept":
                self.transport.feed()
