"""Runs a WSGI application for one request (PEP 3333), in a worker and in the server's own process alike.

What differs is the Flow: how the request's body comes, and how parts of the response leave.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from io import BufferedReader, BytesIO, RawIOBase
from time import perf_counter
from typing import Any, BinaryIO, Protocol
from wsgiref.util import FileWrapper

from asgictl import __version__
from asgictl.app.boundary import UserCode
from asgictl.app.runtime import current
from asgictl.wire.error_responses import APPLICATION_FAILED, plain_text
from asgictl.wire.messages import WINDOW_BYTES, Headers, Request, Response, Scope, plain

logger = logging.getLogger("asgictl.wsgi")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_variables: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
SOFTWARE = f"asgictl/{__version__}"
INPUT_BYTES = 64 << 10
PART_BYTES = WINDOW_BYTES // 4  # a larger body goes in parts of this
MAX_VARIABLES = 1000  # names of headers are the client's choice; the cache must not grow with them
BODILESS = {204, 304}  # RFC 9110, sections 15.3.5 and 15.4.5
_is_status = re.compile(r"[1-9]\d\d( |$)").match


class ClientDisconnected(ConnectionResetError):
    """Nobody waits for this response any more: its client has gone, or another worker answers it."""


class Flow(Protocol):
    """The bytes of one request, both ways, for the thread that runs it.

    entry and inbox: what its parts are to carry. credit: bytes of the response's body that may leave now.
    """

    event: Request
    entry: bytes
    inbox: str

    @property
    def credit(self) -> int: ...

    def pull(self) -> bytes:
        """Wait for the next bytes of the body; b"" at its end. Raises OSError when they will not come."""

    def push(self, part: Response) -> None:
        """Send a part that is not the last, and wait until another may follow. Raises OSError when none may."""


class Body(RawIOBase):
    """The request's body as a file, for io.BufferedReader. Nothing is asked of the client before the first read."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            self._data = memoryview(self._flow.pull())
        size = min(len(buffer), len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


def environ_of(scope: Scope, body: BinaryIO) -> dict[str, Any]:
    """Return the environ of PEP 3333; bytes travel in it as latin-1."""
    host, port = scope.server or ("localhost", None)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": scope.root_path.encode().decode("latin-1"),
        "PATH_INFO": scope.local_path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string.decode("latin-1"),
        "RAW_URI": (scope.raw_path + (b"?" + scope.query_string if scope.query_string else b"")).decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/" + scope.http_version,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or (443 if scope.scheme == "https" else 80)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "SERVER_SOFTWARE": SOFTWARE,
    }
    if scope.client:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope.client[0], str(scope.client[1])
    for name, value in scope.headers:
        if b"_" in name:
            continue  # X_User would pass for X-User, which a proxy may have vouched for; gunicorn drops it too
        variable = _variables.get(name) or _variable(name)
        text = value.decode("latin-1")
        if variable in environ and variable.startswith("HTTP_"):
            text = environ[variable] + ("; " if variable == "HTTP_COOKIE" else ",") + text
        environ[variable] = text
    return environ


def _variable(name: bytes) -> str:
    variable = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_variables) < MAX_VARIABLES:
        _variables[name] = variable
    return variable


@lru_cache(maxsize=256)
def header_name(name: str) -> bytes:
    """Return a response header's name as ASGI has it; raises ValueError for what is none (RFC 9110, section 5.1)."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"start_response: {name!r} is no name that a header can have")
    return name.lower().encode()


class WSGIRun:
    """One request on its way through a WSGI application; what precedes the last part leaves at once, by its flow."""

    def __init__(self, flow: Flow) -> None:
        self.entry = flow.entry
        self._event = flow.event
        self._flow = flow
        self._sequence = 0
        self._status = 0
        self._headers: Headers | None = None
        self._length: int | None = None  # of the body, as the headers have it
        self._sent_bytes = 0
        self._written: list[bytes] = []
        self._began = perf_counter()

    def run(self, application: Application) -> Response:
        """Call the application; returns the last part of the response, to be committed.

        An exception is logged once and becomes a 500, or cuts the connection when the response has begun.
        """
        event = self._event
        self._began = perf_counter()  # in-process it may have waited for a thread
        body: BinaryIO = BufferedReader(Body(self._flow), INPUT_BYTES) if event.more else BytesIO(event.body)
        method, path = event.scope.method, event.scope.path
        with UserCode("%s %s failed", method, path, expected=ClientDisconnected) as ended:
            result = application(environ_of(event.scope, body), self._start_response)
            try:
                return self._collect(result)
            finally:
                self._close(result)
        if isinstance(ended.error, ClientDisconnected):
            logger.info("%s %s ended early: %s", method, path, ended.error)
        return self.failure(500, APPLICATION_FAILED)

    def failure(self, status: int, text: str) -> Response:
        """Return what ends the response when the application does not."""
        if self._sequence:
            return self._part(b"", aborted=True)
        self._status, self._length = status, None
        self._headers, body = plain_text(text)
        return self._part(body)

    def _close(self, result: Any) -> None:
        scope = self._event.scope
        with UserCode("%s %s: close() failed", scope.method, scope.path):
            if hasattr(result, "close"):
                result.close()

    def _collect(self, result: Iterable[bytes]) -> Response:
        """Send parts as they come; a body that is known to be whole becomes a single one."""
        if isinstance(result, (list, tuple)):
            return self._whole(b"".join(self._written + list(result)))
        for data in result:
            if not isinstance(data, bytes):
                raise TypeError(f"a WSGI application yields bytes, not {type(data).__name__}")
            if data:
                self._written.append(data)
                if self._length is None or self._sent_bytes + sum(map(len, self._written)) < self._length:
                    self._flush()
        return self._whole(b"".join(self._written))

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self._sequence:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._headers is not None and not exc_info:
            raise RuntimeError("start_response was called twice without exc_info")
        if not _is_status(status):
            raise ValueError(f"start_response({status!r}): a status is three digits and a reason, such as '200 OK'")
        self._status, self._length = int(status[:3]), None
        self._written.clear()  # of the response that this one replaces
        self._headers = []
        for name, value in headers:
            name, value = plain(name), plain(value)
            if "\n" in value or "\r" in value or "\0" in value:
                raise ValueError(f"start_response: {name}: {value!r} is no value that a header can have")
            self._headers.append((header_name(name), value.encode("latin-1")))
            if name.lower() == "content-length" and self._may_have_body():
                self._length = int(value)
        return self._write

    def _write(self, data: bytes) -> None:
        """PEP 3333's imperative write: what it is given leaves at once."""
        if data:
            self._written.append(data)
            self._flush()

    def _flush(self) -> None:
        body, self._written = b"".join(self._written), []
        self._send(body)

    def _send(self, body: bytes, *, is_last: bool = False) -> bytes:
        """Send parts, none larger than there is credit for; returns what is left, which the last part may carry."""
        at = 0
        while len(body) - at > (self._flow.credit if is_last else 0):
            size = min(self._flow.credit, PART_BYTES)
            self._flow.push(self._part(body[at : at + size], more=True))
            at += size
        return body[at:]

    def _whole(self, body: bytes) -> Response:
        """The rest of the body. When it is all of it its length is known, so the client need not be sent chunks."""
        if not self._sequence and self._headers is not None and self._may_have_body() and self._length is None:
            self._headers.append((b"content-length", b"%d" % len(body)))
        if self._length is not None and self._sent_bytes + len(body) < self._length:
            raise ValueError(f"the body ended after {self._sent_bytes + len(body)} of {self._length} bytes")
        return self._part(self._send(body, is_last=True))

    def _may_have_body(self) -> bool:
        # HEAD's Content-Length would be that of GET's body, which is not known here (RFC 9110, section 8.6).
        return self._status >= 200 and self._status not in BODILESS and self._event.scope.method != "HEAD"

    def _part(self, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
        if self._headers is None:
            raise RuntimeError("the application returned without calling start_response")
        if self._length is not None and self._sent_bytes + len(body) > self._length and not aborted:
            logger.error("%s: the body is longer than its Content-Length; the rest is cut off", self._event.scope.path)
            body = body[: self._length - self._sent_bytes]
        self._sent_bytes += len(body)
        headers = [] if self._sequence else self._headers
        event = self._event
        part = Response(
            *(event.connection, self._sequence, self._status, headers, body, more, aborted),
            *(event.attempt, self._flow.entry, self._flow.inbox if more else ""),
            *(perf_counter() - self._began, current().worker),
        )
        self._sequence += 1
        return part
