"""The response to one HTTP request, without I/O: what its head may say, how long its body is, in which parts it leaves.

WSGI and ASGI answer through it. Whatever an application does wrong with its response is an exception here, so that it
becomes a 500, or a response that is cut off.
"""

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from asgictl.app.runtime import current
from asgictl.wire.asgi import BODILESS, headers_of, left_of
from asgictl.wire.error_responses import plain_text
from asgictl.wire.messages import WINDOW_BYTES, Connect, Headers, Request, Response

PART_BYTES = WINDOW_BYTES // 4  # a larger body goes in parts of this


class ClientDisconnected(ConnectionResetError):
    """Nobody waits for this response any more: its client has gone, or another worker answers it."""


class ResponseParts:
    """One response, whose parts answer `event`: a request, or a handshake that is refused with it.

    entry and inbox: what they are to carry, and home, the last of them. began: when the application was called. status:
    0 until begin(). left: how many bytes of the body the headers still promise, None when they say nothing.
    """

    status: int = 0
    left: int | None = None
    _has_body = False
    _sequence = 0

    def __init__(self, event: Request | Connect, entry: bytes, inbox: str, home: str = "") -> None:
        self.began: float = perf_counter()
        self._event = event
        self._entry = entry
        self._inbox = inbox
        self._home = home
        self._headers: Headers = []

    @property
    def has_begun(self) -> bool:
        """Whether a part was made, which may have left."""
        return self._sequence > 0

    def begin(self, status: int, headers: Iterable[Any], *, is_text: bool = False) -> None:
        """Take status and headers, in the stead of earlier ones. Raises TypeError or ValueError as headers_of does."""
        self._headers, length = headers_of(status, headers, is_text=is_text)
        # HEAD's Content-Length is that of GET's body (RFC 9110, section 8.6).
        is_head = isinstance(self._event, Request) and self._event.scope.method == "HEAD"
        self._has_body = not (is_head or status in BODILESS)
        self.status, self.left = status, length if self._has_body else None

    def announce(self, size: int) -> None:
        """Say how long the body is, unless the headers do or a part has left: the client need not be sent chunks."""
        if self._has_body and self.left is None and not self._sequence:
            self._headers.append((b"content-length", b"%d" % size))

    def parts(self, body: bytes, credit: Callable[[], int], *, more: bool) -> Iterable[Response]:
        """Return the parts for the next bytes of the body, none larger than the credit; wait for credit after each.

        Unless `more`, the last of them ends the response. Raises ValueError for another length than the headers have,
        and RuntimeError before begin().
        """
        if not self.status:
            raise RuntimeError("the application gave a body without a status: it did not call start_response")
        if not self._has_body:
            body = b""
        self.left = left_of(self.left, len(body), more=more)
        if not more and len(body) <= credit():
            return (self.part(body),)  # as most responses are
        return self._cut(body, credit, more)

    def _cut(self, body: bytes, credit: Callable[[], int], more: bool) -> Iterator[Response]:
        at = 0
        while len(body) - at > (0 if more else credit()):
            size = min(credit(), PART_BYTES)
            yield self.part(body[at : at + size], more=True)
            at += size
        if not more:
            yield self.part(body[at:])

    def part(self, body: bytes = b"", *, more: bool = False, aborted: bool = False) -> Response:
        """Return the next part."""
        event, headers = self._event, [] if self._sequence else self._headers
        part = Response(
            event.connection,
            self._sequence,
            self.status,
            headers,
            body,
            more,
            aborted,
            event.attempt,
            self._entry,
            self._inbox if more else "",
            perf_counter() - self.began,
            current().worker,
            "" if more else self._home,
        )
        self._sequence += 1
        return part

    def failure(self, status: int, text: str) -> Response:
        """Return what ends the response when the application does not: a response of ours, or one that is cut off."""
        if self._sequence:
            return self.part(aborted=True)
        self.status, (self._headers, body) = status, plain_text(text)
        return self.part(body)
