"""uvicorn's HTTP protocol on a transport that joins its writes and slices its reads, and that reads every body.

*Writes.* uvicorn writes a response's head and body apart. What a turn of the event loop writes leaves together: a
system call for each costs more than all of asgictl's own work for a request.

*Reads.* One read brings up to 256 KiB. As empty WebSocket fragments or tiny requests these keep the event loop, and all
neighbours, for a second. So a protocol parses them in slices, for TURN_SECONDS in a turn of the loop; the rest waits,
and nothing more is read meanwhile.

*Upgrades.* llhttp takes every request that offers an upgrade for one that is upgraded: it ends before the body. Only a
WebSocket's handshake is taken (see `is_handshake`). Any other offer is ignored (RFC 9110, section 7.8): a second parser
gets the same head without it, and reads the body.
"""

import asyncio
import math
from collections.abc import Iterable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from asgictl.interface.limits import HEADER_BYTES, SLICE_BYTES, TURN_SECONDS
from asgictl.wire.asgi import tokens
from asgictl.wire.error_responses import HEADERS_TOO_LARGE, INVALID_REQUEST
from asgictl.wire.messages import Headers

# A client takes one that it does not know for x00 (RFC 9110, section 15); uvicorn knows those below 600.
STATUS_LINE.update({status: b"HTTP/1.1 %d \r\n" % status for status in range(600, 1000)})


class Parser(Protocol):
    """What a Corked transport's bytes are for."""

    def parse(self, data: bytes) -> None:
        """Parse the next bytes."""

    def takes_more(self) -> bool:
        """Whether it can parse more now. Once it can, it calls Corked.feed()."""


class Corked:
    """A transport whose writes leave together, at the end of the event loop's turn, and whose reads come in slices."""

    protocol: Parser

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon
        self.is_closing = transport.is_closing  # which uvicorn asks for each response
        self._read = b""
        self._parsed = 0  # bytes of it
        self._is_paused = False  # by the protocol
        self._is_held = False  # whether the wrapped transport is paused: by the protocol, or since bytes wait
        self._is_due = False
        self._is_discarding = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write once the event loop comes to it."""
        if not self._written:
            self._call_soon(self._flush)
        self._written.append(data)

    def write_eof(self) -> None:
        """End what is written."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()

    def receive(self, data: bytes) -> None:
        """Have the parser parse what was read: now as much as a turn allows, the rest in the turns that follow."""
        if self._is_discarding:
            return
        if len(data) > SLICE_BYTES or self._waiting or self._is_paused or not self.protocol.takes_more():
            self._read, self._parsed = self._read[self._parsed :] + data, 0
            self._feed()
            return
        self._read, self._parsed = data, len(data)  # as nearly always: without a detour
        self.protocol.parse(data)
        if self._waiting:
            self._feed()
        else:
            self._read, self._parsed = b"", 0  # thousands of idle connections keep nothing

    def unread(self, size: int) -> None:
        """Give the last bytes of a slice back, from within Parser.parse."""
        self._parsed -= size

    def feed(self) -> None:
        """Go on parsing, in the loop's next turn."""
        if self._waiting and not self._is_due:
            self._is_due = True
            self._call_soon(self._feed)

    def discard(self) -> None:
        """Drop what waits, and all that is read from now on."""
        self._is_discarding, self._is_paused = True, False
        self._parsed = len(self._read)
        self._settle()

    def pause_reading(self) -> None:
        """Pass nothing on until resume_reading()."""
        self._is_paused = True
        if not self._is_held:
            self._is_held = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Pass on what waits, then what is read."""
        self._is_paused = False
        if self._waiting:
            self.feed()
        elif self._is_held:
            self._is_held = False
            self._transport.resume_reading()

    @property
    def _waiting(self) -> int:
        return len(self._read) - self._parsed

    def _feed(self) -> None:
        self._is_due = False
        until = monotonic() + TURN_SECONDS if self._waiting > SLICE_BYTES else math.inf
        try:
            while self._waiting and not (self._is_paused or self.is_closing()) and self.protocol.takes_more():
                part = self._read[self._parsed : self._parsed + SLICE_BYTES]
                self._parsed += len(part)
                self.protocol.parse(part)
                if monotonic() > until:
                    self.feed()
                    break
        except BaseException:
            self._transport.abort()  # in a turn of our own nobody else would
            raise
        self._settle()

    def _settle(self) -> None:
        """Pause the wrapped transport while bytes wait, so that they are never more than one read."""
        if not self._waiting:
            self._read, self._parsed = b"", 0
        is_held = self._is_paused or self._waiting > 0
        if is_held != self._is_held and not self.is_closing():
            self._is_held = is_held
            if is_held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Whether a request with an offer to upgrade, with names in lower case, is a WebSocket's (RFC 6455, section 4.1).

    One with a body is none: whoever does not take it for a handshake would find a request in its body.
    """
    names = {name for name, _ in headers}
    return (
        (method, version) == (b"GET", "1.1")
        and b"upgrade" in tokens(headers, b"connection")
        and b"websocket" in tokens(headers, b"upgrade")
        and b"sec-websocket-key" in names
        and b"transfer-encoding" not in names
        and tokens(headers, b"content-length") <= {b"0"}
    )


def without(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Headers:
    """Return the other headers."""
    return [header for header in headers if header[0] != name]


class HTTPProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, and through it its WebSocket protocol, on a corked transport."""

    transport: Corked  # type: ignore[assignment]
    _handshake_waits = False  # for the response to the request before it
    _context = Context()  # this connection's
    _idle_bytes = 0  # that were parsed without a new head or a part of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        corked = Corked(transport)
        corked.protocol = self
        self._context = copy_context()
        super().connection_made(corked)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.transport.receive(data)

    def takes_more(self) -> bool:
        """Whether no request waits for the response to one before it."""
        return not (self.pipeline or self._handshake_waits)

    def parse(self, data: bytes) -> None:
        """Parse the next bytes of requests."""
        self._unset_keepalive_if_required()
        scope = self.scope
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self.transport.unread(len(data) - stopped.args[0])
            self._answer_offer()
        except httptools.HttpParserError:
            self._refuse(INVALID_REQUEST)
        else:
            self._idle_bytes = self._idle_bytes + len(data) if self.scope is scope else 0
            if self._idle_bytes > HEADER_BYTES:
                self._refuse(HEADERS_TOO_LARGE)

    def _answer_offer(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":  # llhttp's other upgrade, which has no body that could be told from a tunnel
            self._refuse("CONNECT is for proxies.")
        elif is_handshake(method, version, self.headers) and self._should_upgrade_to_ws():
            self._handshake_waits = self.cycle is not None and not self.cycle.response_complete
            if not self._handshake_waits:
                self._take_offer()
        else:
            self._ignore_offer(method, version.encode())

    def _take_offer(self) -> None:
        self._unset_keepalive_if_required()
        self.scope["headers"] = [*without(self.headers, b"upgrade"), (b"upgrade", b"websocket")]
        self.handle_websocket_upgrade()

    def _ignore_offer(self, method: bytes, version: bytes) -> None:
        """Parse the head again, without the offer. The application sees it all the same."""
        headers = self.headers
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        head += [b"%s: %s\r\n" % header for header in without(headers, b"upgrade")]
        self.parser = self._new_parser()
        try:
            self.parser.feed_data(b"".join([*head, b"\r\n"]))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(INVALID_REQUEST)
        else:
            self.headers[:] = headers  # the scope's own list; its application starts in another turn

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def _refuse(self, reason: str) -> None:
        self.logger.warning(reason)
        self.send_400_response(reason)

    def _should_upgrade(self) -> bool:
        """Whether uvicorn leaves a request that llhttp stops for to us: always, _answer_offer() knows better."""
        return True

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin what waited for this response, in no context of the application that has sent it."""
        self._context.run(self._complete)

    def _complete(self) -> None:
        super().on_response_complete()
        if self._handshake_waits and self.cycle.response_complete and not self.transport.is_closing():
            self._handshake_waits = False
            self._take_offer()
        self.transport.feed()
