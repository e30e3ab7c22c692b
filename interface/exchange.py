"""One HTTP request on its way: reads the body, waits for the worker's reply, writes the response."""

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from msgspec.structs import replace

from asgictl.interface.session import Receive, Send
from asgictl.messages import Request, Response, Scope

NO_BODY = b""
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}


class BodyTooLarge(Exception):
    """The client's fault: answered with 413."""


class Aborted(Exception):
    """The application failed after the response had begun; the server cuts the connection."""


class Exchange:
    """What a worker's reply is handed to.

    Parts of a response come in sequence; a repeated one is dropped, and so is what comes of another attempt, or of
    another sending of the event than the one whose first part came first.
    """

    __slots__ = ("_entry", "_next", "_parts", "_waiter", "deadline", "event")

    def __init__(self, connection: str, scope: Scope, deadline: float) -> None:
        self.event = Request(connection, 1, scope, b"")
        self.deadline = deadline  # of the first part, by the event loop's clock
        self._parts: deque[Response] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._next = 0
        self._entry = b""  # whose response this is, once it has begun

    def put(self, part: Response) -> None:
        """Take the next part of the response; one that was taken before is dropped."""
        if part.sequence != self._next or part.attempt != self.event.attempt or self._entry not in (b"", part.entry):
            return
        self._entry = part.entry
        self._next += 1
        self.deadline = float("inf")
        self._parts.append(part)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, status: int, text: str) -> None:
        """Answer in the application's stead; an answer that has begun is cut off instead."""
        response = error_response(self.event.connection, status, text)
        self.put(
            replace(
                response, sequence=self._next, aborted=self._next > 0, attempt=self.event.attempt, entry=self._entry
            )
        )

    def lost(self, started: bool) -> Request | None:
        """The worker died. A request that it had not started is sent again; one that it had, only if it is safe, once.

        Safe: RFC 9110, section 9.2.1. Nothing is sent again once the response has begun.
        """
        event = self.event
        if self._next == 0 and (not started or (event.attempt == 1 and event.scope.method in SAFE_METHODS)):
            self.event = replace(event, attempt=event.attempt + started)
            return self.event
        self.fail(502, "The worker that ran this request died.")
        return None

    async def get(self) -> Response:
        """Wait for the next part."""
        while not self._parts:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._parts.popleft()

    async def write(self, send: Send) -> None:
        """Write the response out, part by part; raises Aborted when the application failed on the way."""
        part = await self.get()
        await send({"type": "http.response.start", "status": part.status, "headers": part.headers})
        while part.more:
            await send({"type": "http.response.body", "body": part.body, "more_body": True})
            part = await self.get()
        if part.aborted:
            raise Aborted
        await send({"type": "http.response.body", "body": part.body})


def error_response(connection: str, status: int, text: str) -> Response:
    """Return a complete plain-text response; 503 says when to try again."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % (len(text) + 1))]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return Response(connection, 0, status, headers, text.encode() + b"\n")


async def read_body(scope: MutableMapping[str, Any], receive: Receive, limit: int) -> bytes:
    """Return the request's body; raises BodyTooLarge, and ConnectionResetError when the client left on the way."""
    length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = -1
    if not length:
        return NO_BODY  # RFC 9112, section 6.3: neither header, no body
    if length > limit:
        raise BodyTooLarge
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BodyTooLarge
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
