"""In-process, what an interface server does about a body that is too large, 413, and a failed application, 500."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from asgictl.interface.pending_request import Aborted
from asgictl.telemetry.access_log import Answer
from asgictl.wire.asgi import BODILESS, Receive, Send, headers_of, left_of, status_of
from asgictl.wire.error_responses import APPLICATION_FAILED, BODY_TOO_LARGE, error_response


class LimitedBody:
    """The `receive` and `send` of one HTTP request. Past the limit the application hears that its client has gone.

    has_begun: the response has. has_ended: it is complete, or the application was told that nobody waits for it.
    """

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._received = 0
        self.answer = Answer()
        self._is_head = scope.get("method") == "HEAD"
        self._left: int | None = None  # of the response's body, as its headers have it
        # The response's start, until the first of its body or the loop's next turn.
        self._held: MutableMapping[str, Any] | None = None
        self._starting: asyncio.Task[None] | None = None
        self.has_begun = False
        self.has_ended = False
        lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
        self.is_too_large = any(length > limit for length in lengths)

    async def receive(self) -> MutableMapping[str, Any]:
        if self.is_too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self.has_ended |= message["type"] == "http.disconnect"
        self._received += len(message.get("body", b""))
        if self._received <= self._limit:
            return message
        self.is_too_large = self.has_ended = True
        if not self.has_begun:
            await self.refuse()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self.is_too_large:
            return
        if message["type"] == "http.response.start":  # a server may find a mistake only when it has begun to write
            status = status_of(message["status"])
            headers, length = headers_of(status, message.get("headers") or ())
            self._left = None if self._is_head or status in BODILESS else length
            self.answer.begin(status)
            self._held = {**message, "status": status, "headers": headers}
            asyncio.get_running_loop().call_soon(self._start)  # unless a body follows at once, which may be a mistake
            return
        if self.answer.status in BODILESS:
            message = {**message, "body": b""}
        body, more = message.get("body", b""), message.get("more_body", False)
        self._left = left_of(self._left, len(body), more=more)
        await self._begin()
        self.answer.bytes += len(body)
        await self._send(message)
        self.has_ended |= message["type"] == "http.response.body" and not more

    def _start(self) -> None:
        if self._held:
            self._starting = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        if (starting := self._starting) and asyncio.current_task() is not starting:
            await starting  # so that the server gets one message after another
        if held := self._held:
            self._held, self.has_begun = None, True
            await self._send(held)

    async def refuse(self) -> None:
        """Answer in the application's stead."""
        await self._answer(413, BODY_TOO_LARGE.format(self._limit))

    async def fail(self) -> None:
        """The application has failed: answer in its stead; raises Aborted when its response had begun."""
        if not self.has_begun:
            await self._answer(500, APPLICATION_FAILED)
        elif not self.has_ended:
            raise Aborted from None

    async def _answer(self, status: int, text: str) -> None:
        self._held = None
        self.answer.begin(status)
        response = error_response("", status, text)
        await self._send({"type": "http.response.start", "status": status, "headers": response.headers})
        await self._send({"type": "http.response.body", "body": response.body})
