"""HTTP/1.1 and 1.0 for uvicorn's server: a request reaches the backend by a plain call, and its response the transport.

llhttp (httptools) parses. What it lets pass and RFC 9112 does not, is refused in on_headers_complete().

*Pipelining.* Requests are answered one after another (RFC 9112, section 9.3.2). While one waits behind another, nothing
more is parsed.

*Upgrades.* llhttp takes every request that offers an upgrade for one that is upgraded: it ends before the body. Only a
WebSocket's handshake is taken (framing.is_handshake). Any other offer is ignored (RFC 9110, section 7.8): a second
parser gets the same head without it, and reads the body.
"""

import asyncio
from collections import deque
from typing import Any

import httptools

from asgictl.interface import limits
from asgictl.interface.edge import Deadlines
from asgictl.interface.edge_connection import EdgeConnection, addresses
from asgictl.interface.edge_request import HTTPRequest
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.interface.framing import is_handshake, is_host
from asgictl.interface.request_head import refusal_of
from asgictl.wire.error_responses import (
    CODING_UNKNOWN,
    CONNECT_REFUSED,
    HEADERS_TOO_LARGE,
    HEADERS_TOO_SLOW,
    INVALID_HOST,
    INVALID_REQUEST,
    TOO_MANY,
    TOO_MANY_CONNECTIONS,
)
from asgictl.wire.messages import Scope

_HEEDED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect", b"x-forwarded-for", b"x-forwarded-proto"}
)


class HTTPProtocol(EdgeConnection):
    """A client's connection, until its end or its handshake. uvicorn makes one for each, by these keywords."""

    is_ending: bool = False  # after the response that is under way
    _reading: HTTPRequest | None = None  # that is parsed
    _offered: HTTPRequest | None = None  # that offers an upgrade
    _current: HTTPRequest | None = None  # that is answered
    _draining: HTTPRequest | None = None  # that was, and whose body has not all come
    _waits_in: Deadlines | None = None
    _has_moved = False  # a head, or a part of a body, was parsed in this read
    _unfinished = 0  # bytes that were parsed since
    _is_refused = False  # nothing more is parsed
    _takes_handshake = False  # nor behind a handshake, by this protocol
    _behind = b""  # what came behind it, while it is parsed
    _is_half_closed = False
    _is_trusted = False  # as a proxy

    def __init__(self, config: Any, server_state: Any, app_state: object, _loop: object = None) -> None:
        super().__init__(config.loaded_app, server_state)
        self.edge.adopt(config, server_state)
        self._config = config
        self._field_bytes = self.edge.limits.header_field_bytes
        self._root_path: str = config.root_path
        self._parser = self._new_parser()
        self._queue: deque[HTTPRequest] = deque()  # of requests that wait for the one before them
        if config.is_ssl:  # a server that stops waits for its handshake, of which nobody is told if it fails
            server_state.connections.add(self)
            self.edge.arriving.start(self, self.edge.loop.time())

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        edge = self.edge
        edge.arriving.stop(self)
        self.is_secure: bool = self.transport.get_extra_info("sslcontext") is not None
        if not edge.make_room():
            self._refuse(503, TOO_MANY_CONNECTIONS, limits.TOO_MANY_FILES)
            self._advance()
            return
        self.client, self.server = addresses(self.transport)
        self._is_trusted = edge.trusted.trusts(self.client)
        self._wait_in(edge.first_byte)

    def _wait_in(self, deadlines: Deadlines | None) -> None:
        if self._waits_in is not None:
            self._waits_in.stop(self)
        self._waits_in = deadlines
        if deadlines is not None:
            deadlines.start(self, self.edge.loop.time())

    def takes_more(self) -> bool:
        """Whether no request waits behind another, and no body for whoever is to read it."""
        return not (self._queue or self._takes_handshake) and self.reads_on()

    def reads_on(self) -> bool:
        """Whether there is room for more of the body that comes."""
        return self._reading is None or self._reading.has_room

    def parse(self, data: bytes) -> int:
        """Parse the next bytes of requests."""
        if self._is_refused:
            return 0
        self._has_moved = False
        left = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            left = len(data) - stopped.args[0]
            self._behind = data[stopped.args[0] :]
            self._answer_offer()
        except httptools.HttpParserError:
            self._refuse(400, INVALID_REQUEST, limits.INVALID)
        if self._is_refused:
            pass
        elif not self._has_moved:
            self._count_unfinished(len(data) - left)
        elif self._unfinished or self._waits_in is not None:
            self._forget_unfinished()
        if self._reading is not None and not self._reading.has_head and self._waits_in is not self.edge.header:
            self._wait_in(self.edge.header)
        self._advance()
        if left:
            self._behind = b""
            return 0 if self._is_discarding else left
        return 0

    # llhttp's callbacks. They only note: the parser is not to be changed under itself.

    def on_message_begin(self) -> None:
        self._reading = HTTPRequest(self)

    def on_url(self, url: bytes) -> None:
        assert self._reading is not None  # noqa: S101 - it has begun
        self._reading.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._reading
        if request is None or request.has_head:
            return  # a trailer, which nobody is given
        name = name.lower()
        request.headers.append((name, value))
        if len(value) > self._field_bytes:
            request.refusal = 431, HEADERS_TOO_LARGE, limits.HEADERS_REFUSED
        if name not in _HEEDED:
            return
        if name == b"host":
            request.hosts += 1
            if not is_host(value):
                request.refusal = 400, INVALID_HOST, limits.INVALID
        elif name == b"content-length":
            request.length = int(value)  # llhttp has checked it
        elif name == b"transfer-encoding":
            request.length = -1
            if value.lower() != b"chunked":  # another coding before it, which llhttp lets pass
                request.refusal = 501, CODING_UNKNOWN, limits.INVALID
        elif name == b"expect":
            request.expects = value.lower() == b"100-continue"
        else:
            request.is_forwarded = True

    def on_headers_complete(self) -> None:
        request, parser = self._reading, self._parser
        assert request is not None  # noqa: S101 - it has begun
        self._has_moved = request.has_head = True
        request.method = parser.get_method()
        request.version = version = parser.get_http_version()
        request.keeps_alive = version == "1.1" and parser.should_keep_alive()
        request.expects = request.expects and version == "1.1"
        request.refusal = (
            refusal_of(
                *(version, request.url, request.headers, request.hosts, self.edge.limits), is_whole=not self._unfinished
            )
            or request.refusal
        )
        if parser.should_upgrade() and not request.refusal:
            self._offered = request
        else:
            self._enqueue(request)

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        if self._reading is not None:
            self._reading.put_body(body)

    def on_chunk_complete(self) -> None:
        self._has_moved = True

    def on_message_complete(self) -> None:
        self._has_moved = True
        if self._reading is not None:
            self._reading.is_complete = True
            self._reading = None

    def _enqueue(self, request: HTTPRequest) -> None:
        if self._current is None and self._draining is None:
            self._current = request
        else:
            self._queue.append(request)

    def _answer_offer(self) -> None:
        request, self._offered, self._reading = self._offered, None, None
        if request is None:  # it was refused
            return
        if request.method == b"CONNECT":  # llhttp's other upgrade, with a body that could not be told from a tunnel
            request.refusal = 400, CONNECT_REFUSED, limits.INVALID
            self._enqueue(request)
        elif is_handshake(request.method, request.version, request.headers):
            request.is_complete = request.is_handshake = self._takes_handshake = True
            self._enqueue(request)
        else:
            self._ignore_offer(request)

    def _ignore_offer(self, request: HTTPRequest) -> None:
        """Parse the head again, without the offer. The application sees it all the same."""
        head = [b"%b %b HTTP/%b\r\n" % (request.method, request.url, request.version.encode())]
        head += [b"%b: %b\r\n" % header for header in request.headers if header[0] != b"upgrade"]
        self._parser = self._new_parser()
        try:
            self._parser.feed_data(b"".join([*head, b"\r\n"]))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, INVALID_REQUEST, limits.INVALID)
        else:
            again = self._queue[-1] if self._queue else self._current
            assert again is not None  # noqa: S101 - it was enqueued just now
            again.headers = request.headers

    def _count_unfinished(self, size: int) -> None:
        """Count what has come of a head, of trailers, or between two requests, and is not whole."""
        self._unfinished += size
        self.edge.unfinished_bytes += size
        if self._unfinished > self.edge.limits.header_bytes:
            self._refuse(431, HEADERS_TOO_LARGE, limits.HEADERS_REFUSED)
        elif not self._is_refused:
            if self._waits_in is not self.edge.header:
                self._wait_in(self.edge.header)
            self.edge.bound_unfinished()

    def _forget_unfinished(self) -> None:
        self.edge.unfinished_bytes -= self._unfinished
        self._unfinished = 0
        self._wait_in(None)

    def refuse_late(self) -> None:
        """Answer 408: the head did not come in time."""
        self._waits_in = None
        self._refuse(408, HEADERS_TOO_SLOW, limits.HEADERS_LATE)
        self._advance()

    def refuse_crowded(self) -> None:
        """Answer 431: the unfinished heads of all connections together are too large."""
        self._refuse(431, HEADERS_TOO_LARGE, limits.HEADERS_CROWDED)
        self._advance()

    def _refuse(self, status: int, text: str, reason: str) -> None:
        """Answer what is parsed now with an error, once its turn has come, and parse nothing more."""
        self._is_refused = True
        self._forget_unfinished()
        request, self._reading = self._reading, None
        if request is not None and request.has_head:
            if request.refusal is None:
                self._refuse_body(request, status, text, reason)
        else:
            request = HTTPRequest(self)
            request.refusal = status, text, reason
            self._enqueue(request)

    def _refuse_body(self, request: HTTPRequest, status: int, text: str, reason: str) -> None:
        """The body of a request that may be under way already is wrong."""
        if request.handler is None:
            request.refusal = status, text, reason
        elif request.fail(status, text):
            self.edge.reject(reason)

    def _advance(self) -> None:
        """Go on with what was parsed."""
        request = self._current
        if request is None:
            if self._draining is not None:
                if not self._draining.is_complete:
                    return
                self._draining = None
                self.edge.linger.stop(self)
                self._wait_for_next()
            if not self._queue:
                return
            request = self._current = self._queue.popleft()
        if request.handler is not None:
            request.deliver()
        elif request.refusal is not None:
            self._answer_refusal(request, *request.refusal)
        elif request.is_handshake:
            self._shake_hands(request)
        elif request.is_complete or not self._waits_for_body(request):
            self._dispatch(request)

    def _waits_for_body(self, request: HTTPRequest) -> bool:
        """Whether a small body may still come in time to go with its request."""
        if request.expects or not 0 < request.length <= self.edge.limits.inline_bytes:
            return False
        if request.grace is None:
            request.grace = self.edge.loop.call_later(limits.GRACE_SECONDS, self._dispatch, request)
        return True

    def _dispatch(self, request: HTTPRequest) -> None:
        if request.grace is not None:
            request.grace.cancel()
        edge = self.edge
        most = self._config.limit_concurrency
        if most is not None and edge.requests >= most:
            self._answer_refusal(request, 503, TOO_MANY, limits.CONCURRENCY)
            return
        scope = self._scope(request, "https" if self.is_secure else "http")
        if scope is None:
            self._answer_refusal(request, 400, INVALID_REQUEST, limits.INVALID)
            return
        edge.requests += 1
        request.is_counted = True
        body = request.take_body() if request.is_complete else b""  # else it is asked for
        request.handler = edge.backend.http(scope, body, request.length, not request.is_complete, request)

    def _scope(self, request: HTTPRequest, scheme: str) -> Scope | None:
        trusted = self.edge.trusted if self._is_trusted else None
        return request.scope(scheme, self._root_path, self.client, self.server, trusted)

    def _answer_refusal(self, request: HTTPRequest, status: int, text: str, reason: str) -> None:
        self.edge.reject(reason)
        self._is_refused = True
        request.refuse(status, text)

    def _shake_hands(self, request: HTTPRequest) -> None:
        """Leave the connection to the WebSocket protocol, with what came behind the handshake."""
        scope = self._scope(request, "wss" if self.is_secure else "ws")
        if scope is None:
            self._answer_refusal(request, 400, INVALID_REQUEST, limits.INVALID)
            return
        rest = self._behind + self._unread[self._parsed :]
        self._unread, self._parsed, self._is_discarding, self._current = b"", 0, True, None
        self.state.connections.discard(self)
        self.edge.forget(self)
        self._parser = None
        WebSocketProtocol(self.edge, self.state, self._config).take_over(
            self, scope, request.url.decode("latin-1"), rest
        )

    def answered(self, request: HTTPRequest, *, keeps_alive: bool) -> None:
        """A response is complete: go on with the next request, or close."""
        self.state.total_requests += 1
        self._count_out(request)
        self._current = None
        if self.transport.is_closing():
            return
        if not keeps_alive or self.is_ending or (self._is_half_closed and not (self._queue or self._unread)):
            self.end()
        elif not request.is_complete:
            self._draining = request
            self.edge.linger.start(self, self.edge.loop.time())
        else:
            self._wait_for_next()
        if self._unread or self.is_held:
            self.feed()

    def _wait_for_next(self) -> None:
        if self._queue:  # in no context of the application that has answered
            self.edge.loop.call_soon(self._go_on, context=self.edge.context)
        elif self._reading is None and not self._unfinished:
            self._wait_in(self.edge.keep_alive)

    def _go_on(self) -> None:
        self._advance()
        if not self._is_discarding:
            self.feed()

    def _count_out(self, request: HTTPRequest) -> None:
        if request.is_counted:
            request.is_counted = False
            self.edge.requests -= 1

    def cut(self, *, is_delimited: bool) -> None:
        """Close behind a response that was cut off; with a reset where its end could be taken for the body's."""
        if not is_delimited:
            self.reset()
        else:
            self.finish()

    def eof_received(self) -> bool:
        """The client sends nothing more. It may wait for the responses to what it has sent whole, for a moment."""
        waits = self._queue or (self._current is not None and self._current is not self._reading)
        if not waits or self.is_secure:
            return super().eof_received()
        if self._queue and self._queue[-1] is self._reading:  # it can never be whole
            self._queue.pop().lose()
        self._is_half_closed = True
        self.edge.loop.call_later(limits.HALF_CLOSED_SECONDS, self._end_half_closed)
        return True

    def _end_half_closed(self) -> None:
        """Close, unless a response that has begun still makes its way: else its client has gone altogether."""
        self.is_ending = True
        request = self._current
        if (
            request is not None
            and request.has_begun
            and (request.has_written or self.transport.get_write_buffer_size())
        ):
            request.has_written = False
            self.edge.loop.call_later(limits.HALF_CLOSED_SECONDS, self._end_half_closed)
        else:
            self.finish()

    def end(self) -> None:
        """Close after what was written: what is not answered yet is not to be written behind that."""
        self._lose_all()
        self._wait_in(None)
        super().end()

    def _lose_all(self) -> None:
        for request in (self._current, self._reading, *self._queue):
            if request is not None:
                request.lose()
        self._queue.clear()

    def client_left(self) -> None:
        """The client sends nothing more, and is not read: end what can never be whole."""
        request = self._reading
        if request is not None and request.received_bytes + self.unread_bytes() < request.length:
            self.transport.abort()

    def resumed(self) -> None:
        if self._current is not None and self._current.handler is not None:
            self._current.handler.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_discarding and self._parser is None:
            return  # another protocol has the connection
        super().connection_lost(exc)
        self.edge.unfinished_bytes -= self._unfinished
        self._unfinished, self._parser = 0, None
        if self._current is not None:
            self._count_out(self._current)
        self._lose_all()

    def shutdown(self) -> None:
        """Do nothing, as uvicorn calls it: the edge drains, so the next response that begins closes the connection."""
