"""uvicorn's WebSocket protocol, which encodes a frame once for all sockets that it is written to in a row."""

from functools import lru_cache
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN


@lru_cache(1)
def encoded(frame: str | bytes) -> bytes:
    """Return the bytes of a server's frame (RFC 6455, section 5.2). Members of a group get the same object in turn."""
    made = Frame(Opcode.TEXT, frame.encode()) if isinstance(frame, str) else Frame(Opcode.BINARY, frame)
    return made.serialize(mask=False)


class FramedProtocol(WebSocketsSansIOProtocol):
    """Writes a frame itself where uvicorn would do nothing more with it: on an open socket without extensions."""

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
