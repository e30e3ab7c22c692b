"""One HTTP request of an ASGI application inside the server (ASGI, HTTP connection scope)."""

import asyncio
from collections.abc import Callable
from typing import Any

from asgictl.app.boundary import UserCode
from asgictl.app.outcome import Outcome
from asgictl.interface.edge import ClientRequest
from asgictl.telemetry.access_log import Answer
from asgictl.telemetry.metrics import CLIENT_GONE
from asgictl.wire.asgi import BODILESS, ASGIMessage, bytes_of, headers_of, left_of, status_of
from asgictl.wire.error_responses import APPLICATION_FAILED, BODY_TOO_LARGE, error_response
from asgictl.wire.messages import Headers, Scope, printable


class ASGIRequest:
    """A RequestHandler: `receive` and `send` of one request. Past the body's limit the application hears a disconnect.

    has_ended: the response is complete, or nobody waits for it. has_begun: its head is sent. is_cut_off: not its end.
    """

    def __init__(
        self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest, body_limit: int
    ) -> None:
        self.scope = scope
        self.answer: Answer = Answer()
        self.has_ended: bool = False
        self.has_begun: bool = False
        self.is_cut_off: bool = False
        self._code = UserCode(
            *("%s %s failed", scope.method, scope.path), is_cancellable=True, entry=b"", headers=scope.headers
        )
        self._is_gone = False  # the client has left, or is not listened to any more
        self._client = client
        self._limit = body_limit
        self._body: tuple[bytes, bool] | None = None if more else (body, False)  # what the application can receive
        self._more = more  # what it has not all asked for
        self._size = 0  # of what has come
        self._changed = asyncio.Event()
        self._held: tuple[int, Headers] | None = None  # the response's head, until a part of its body or the next turn
        self._left: int | None = None  # of the response's body, as its headers have it
        if max(length, len(body)) > body_limit:
            self._refuse()

    def name(self) -> str:
        """Return `GET /path`."""
        return printable(f"{self.scope.method} {self.scope.path}")

    # A RequestHandler's calls.

    def received(self, data: bytes, more: bool) -> None:
        """Take the next part of the body."""
        self._size += len(data)
        if self._size > self._limit:
            self._refuse()
        else:
            self._body, self._more = (data, more), more
        self._changed.set()

    def resumed(self) -> None:
        """The client has taken what was written."""
        self._changed.set()

    def gone(self) -> None:
        """The client has left."""
        self.has_ended = self._is_gone = True
        self._held = None
        self.answer.status = self.answer.status or CLIENT_GONE
        self._changed.set()

    async def _wait(self) -> None:
        """Wait for any change; `receive` and `send` may do so at once."""
        self._changed.clear()
        await self._changed.wait()

    # The application's.

    async def run(self, application: Callable[..., Any], scope: dict[str, Any], outcome: Outcome) -> None:
        """Run the application; whatever it does, its request ends with one response, or a connection that is cut."""
        if self.has_ended:
            return
        try:
            with self._code, outcome:
                await application(scope, self.receive, self.send)
                if not self.has_ended:
                    raise RuntimeError("the application returned before its response was complete")
        finally:  # a server that stops may cancel this task
            self._fail()

    async def receive(self) -> ASGIMessage:
        while not self.has_ended:
            if self._body is not None:
                (body, more), self._body = self._body, None
                return {"type": "http.request", "body": body, "more_body": more}
            if self._more:
                self._more = False  # until it has come
                self._client.want()
            else:
                await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: ASGIMessage) -> None:
        if self._is_gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.answer.status:
            self._begin(status_of(message["status"]), message.get("headers") or ())
        elif kind == "http.response.body" and self.answer.status and not self.has_ended:
            await self._send_body(bytes_of(message.get("body", b"")), more=bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"{kind} out of order: http.response.start comes first and once, a last body last")

    def _begin(self, status: int, headers: Any) -> None:
        checked, length = headers_of(status, headers)
        self._left = None if self.scope.method == "HEAD" or status in BODILESS else length
        self._held = status, checked
        self.answer.begin(status)
        self._code.has_answered()
        asyncio.get_running_loop().call_soon(self._start)  # unless a body follows at once, which may be a mistake

    def _start(self) -> None:
        if self._held is not None:
            self._write(b"", more=True)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.answer.status in BODILESS:
            body = b""
        self._left = left_of(self._left, len(body), more=more)
        self.answer.bytes += len(body)
        self.has_ended = not more
        self._write(body, more=more)
        if not more:
            self._changed.set()
        while more and self._client.is_paused and not self._is_gone:
            await self._wait()

    def _write(self, body: bytes, *, more: bool) -> None:
        if self._held is not None:
            (status, headers), self._held = self._held, None
            self.has_begun = True
            self._client.respond(status, headers, body, more)
        else:
            self._client.write(body, more)

    def _refuse(self) -> None:
        """Answer 413 in the application's stead."""
        self.has_ended = self._is_gone = True
        if self.has_begun:
            self.is_cut_off = True
            self._client.abort()
        else:
            self._answer(413, BODY_TOO_LARGE.format(self._limit))

    def _fail(self) -> None:
        """The application has failed: answer in its stead, or cut off what had begun."""
        if self.has_ended:
            return
        self.has_ended = self._is_gone = True
        if self.has_begun:
            self.is_cut_off = True
            self._client.abort()
        else:
            self._answer(500, APPLICATION_FAILED)

    def _answer(self, status: int, text: str) -> None:
        self._held = None
        self.answer.begin(status)
        response = error_response("", status, text)
        self._client.respond(status, response.headers, response.body, more=False)
