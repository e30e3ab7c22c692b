"""websockets' ServerProtocol, which judges a WebSocket's handshake (RFC 6455, section 4.2) and what follows it."""

import logging
from typing import NamedTuple

from websockets.datastructures import Headers as WebSocketHeaders
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from asgictl.wire.error_responses import RETRY_AFTER
from asgictl.wire.messages import Headers, Scope

logger = logging.getLogger("asgictl.edge")
# permessage-deflate as uvicorn offers it, where its user wants it.
DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


class Answer(NamedTuple):
    """To a handshake. status: 101 where it is valid. body: of a refusal. extensions: that were agreed on."""

    status: int
    headers: Headers
    body: bytes
    extensions: list[Extension]


def judge(scope: Scope, target: str, *, deflates: bool) -> Answer:
    """Return the answer to a request for an upgrade, but for the date."""
    protocol = ServerProtocol(extensions=[DEFLATE] if deflates else None, logger=logger)
    given = [(name.decode(), value.decode("latin-1")) for name, value in scope.headers if name != b"upgrade"]
    headers = WebSocketHeaders([*given, ("upgrade", "websocket")])  # framing.is_handshake has found it in a list
    response = protocol.accept(Request(target, headers))
    kept = [(n.encode(), v.encode("latin-1")) for n, v in response.headers.raw_items() if n != "Date"]
    if response.status_code == 101:
        return Answer(101, kept, b"", list(protocol.extensions))
    status, kept = response.status_code, [(name.lower(), value) for name, value in kept]
    if (asked := headers.get_all("sec-websocket-version")) and asked != ["13"]:  # section 4.2.2
        status, kept = 426, [*kept, (b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
    return Answer(status, kept, bytes(response.body or b""), [])


def refusal(status: int, headers: Headers, body: bytes) -> Headers:
    """Return the headers of an answer that refuses a handshake, with what it lacks."""
    if status == 503 and not headers:
        headers = [RETRY_AFTER]
    has_length = any(name == b"content-length" for name, _ in headers)
    return headers if has_length else [*headers, (b"content-length", b"%d" % len(body))]


def open_protocol(most_bytes: int, extensions: list[Extension] | None = None) -> ServerProtocol:
    """Return what judges the frames of an accepted WebSocket. most_bytes: of a message."""
    protocol = ServerProtocol(state=OPEN, max_size=most_bytes, logger=logger)
    protocol.extensions = extensions or []
    return protocol
