"""One HTTP request and its response, as its client's connection has them.

*Early answers.* A response need not wait for its request's body. What is left of a small body is read and dropped; else
the connection is closed behind the response.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from asgictl.interface import limits
from asgictl.interface.edge import Edge, RequestHandler
from asgictl.interface.forwarded import Trusted
from asgictl.interface.framing import CONTINUE, Defaults, ResponseWriter
from asgictl.interface.request_head import Refusal, target_of
from asgictl.wire.error_responses import plain_text
from asgictl.wire.messages import Address, Headers, Scope

logger = logging.getLogger("asgictl.edge")


class RequestConnection(Protocol):
    """The connection of a request."""

    edge: Edge
    home: str
    is_paused: bool
    is_ending: bool

    def defaults(self) -> Defaults: ...

    def write(self, data: bytes) -> None: ...

    def feed(self) -> None: ...

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None: ...

    def answered(self, request: "HTTPRequest", *, keeps_alive: bool) -> None: ...

    def cut(self, *, is_delimited: bool) -> None: ...


class HTTPRequest:
    """One request, as its client sent it: a ClientRequest.

    length: of its body; -1 where only its end tells.
    is_complete: all of its body has come. has_begun: its response has. has_written: more of it, since somebody looked.
    """

    version = "1.1"
    hosts = length = 0
    expects: bool = False  # 100 Continue (RFC 9110, section 10.1.1)
    has_head = is_complete = is_handshake = False
    keeps_alive: bool = False
    has_begun: bool = False
    has_ended: bool = False
    has_written: bool = False
    refusal: Refusal | None = None
    handler: RequestHandler | None = None
    grace: asyncio.TimerHandle | None = None  # for a small body that comes behind its head
    body_bytes: int = 0  # that wait
    received_bytes: int = 0  # of the body
    is_counted = False  # as one that is in flight
    is_forwarded = False  # it has a proxy's headers
    _is_wanted = _has_told_end = False
    _writer: ResponseWriter | None = None

    def __init__(self, protocol: RequestConnection) -> None:
        self._protocol = protocol
        self._edge = protocol.edge
        self.method = b"GET"
        self.url = b""
        self.headers: Headers = []
        self._parts: list[bytes] = []  # of the body

    @property
    def home(self) -> str:
        """The worker that has answered on this connection last."""
        return self._protocol.home

    @home.setter
    def home(self, home: str) -> None:
        self._protocol.home = home

    @property
    def is_paused(self) -> bool:
        """Whether what was written waits for the client."""
        return self._protocol.is_paused

    @property
    def has_room(self) -> bool:
        """Whether more of the body is to be read."""
        if self._is_wanted or self.has_ended or self.body_bytes < limits.HIGH_WATER_BYTES:
            return True
        return self.body_bytes < limits.READ_AHEAD_BYTES and self._edge.body_bytes < limits.ALL_READ_AHEAD_BYTES

    def put_body(self, data: bytes) -> None:
        """Keep a part of the body until it is asked for; what comes behind the response is dropped."""
        self.received_bytes += len(data)
        if not self.has_ended:
            self._parts.append(data)
            self._count(len(data))

    def take_body(self) -> bytes:
        """Return what has come of the body and was not handed on."""
        body = b"".join(self._parts)
        self._forget_body()
        self._has_told_end = self.is_complete
        return body

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves this request in a task."""
        self._protocol.run_task(serving)

    def _count(self, size: int) -> None:
        self.body_bytes += size
        self._edge.body_bytes += size

    def _forget_body(self) -> None:
        if self.body_bytes:
            self._parts.clear()
            self._count(-self.body_bytes)

    def want(self) -> None:
        """Read on, and hand on what has come."""
        self._is_wanted = True
        if self.expects and not (self.has_begun or self._parts or self.is_complete):
            self.expects = False
            self._protocol.write(CONTINUE)
        self.deliver()
        self._protocol.feed()

    def deliver(self) -> None:
        """Hand on what has come of the body, if it was asked for."""
        if self._is_wanted and self.handler and (self._parts or (self.is_complete and not self._has_told_end)):
            self._is_wanted = False
            self.handler.received(self.take_body(), not self.is_complete)

    def respond(self, status: int, headers: Headers, body: bytes, more: bool) -> None:
        """Write the response's head and the first part of its body."""
        if self.has_ended:
            return
        self.has_begun = True
        keeps_alive = self.keeps_alive and not (self._protocol.is_ending or self._edge.is_draining)
        closes = not (keeps_alive and (self.is_complete or self._is_drainable))
        writer = self._writer = ResponseWriter(self.method == b"HEAD", self.version == "1.0", closes)
        try:
            data = writer.head(status, headers, self._protocol.defaults(), body, more)
        except ValueError as error:
            self._break(error)
            return
        self._protocol.write(data)
        if not more:
            self._end(writer)

    def refuse(self, status: int, text: str) -> None:
        """Answer in the application's stead, and have the connection closed behind that."""
        self.keeps_alive = False
        self.respond(status, *plain_text(text, status), more=False)

    def fail(self, status: int, text: str) -> bool:
        """End a request that is served: its handler is told. Return whether it was answered, and not cut off."""
        assert self.handler is not None  # noqa: S101 - it is served
        handler, begun = self.handler, self.has_begun
        if begun:
            self.abort()
        handler.gone()
        if not begun:
            self.refuse(status, text)
        return not begun

    def scope(
        self, scheme: str, root_path: str, client: Address | None, server: Address | None, trusted: Trusted | None
    ) -> Scope | None:
        """Return what the application is told of this request; None when its target is invalid.

        trusted: whose word on clients counts, where the peer is one of them.
        """
        found = target_of(self.url, self.headers)
        if found is None:
            return None
        raw_path, query, headers = found
        path = (raw_path if b"%" not in raw_path else unquote_to_bytes(raw_path)).decode(errors="replace")
        if root_path:
            path, raw_path = root_path + path, root_path.encode() + raw_path
        if self.is_forwarded and trusted is not None:
            client, scheme = trusted.client(headers, client), trusted.scheme(headers, scheme)
        told = (self.method.decode(), scheme, self.version, root_path, path, raw_path, query, headers, client, server)
        return Scope(*told)

    def write(self, body: bytes, more: bool) -> None:
        """Write the next part of the response."""
        if self.has_ended or self._writer is None:
            return
        try:
            data = self._writer.part(body, more)
        except ValueError as error:
            self._break(error)
            return
        self.has_written = True
        self._protocol.write(data)
        if not more:
            self._end(self._writer)

    @property
    def _is_drainable(self) -> bool:
        return not self.expects and 0 <= self.length <= limits.DRAIN_BYTES

    def _break(self, error: ValueError) -> None:
        logger.error("%s %s: %s", self.method.decode(), self.url.decode("latin-1"), error)
        handler, self.handler = self.handler, None
        self.abort()
        if handler:
            handler.gone()

    def abort(self) -> None:
        """Cut off the response, so that its client can tell."""
        if not self.has_ended:
            self.has_ended = True
            self._forget_body()
            self._protocol.cut(is_delimited=self._writer is None or self._writer.is_delimited)

    def _end(self, writer: ResponseWriter) -> None:
        self.has_ended, self.handler = True, None
        self._forget_body()
        self._protocol.answered(self, keeps_alive=not writer.closes)

    def lose(self) -> None:
        """The client has left: nothing is written any more, and whoever serves the request is to know."""
        if self.grace:
            self.grace.cancel()
        self._forget_body()
        if not self.has_ended:
            self.has_ended = True
            if self.handler:
                self.handler.gone()


def with_subprotocols(scope: Scope) -> Scope:
    """Return a handshake's scope, as it is told to the application: a WebSocket has no method."""
    offered = [value for name, value in scope.headers if name == b"sec-websocket-protocol"]
    names = [each.strip().decode("latin-1") for value in offered for each in value.split(b",")]
    return replace(scope, method="", subprotocols=[each for each in names if each])
