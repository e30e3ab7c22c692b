"""Runs a WSGI application for one request event (PEP 3333)."""

import logging
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import BufferedReader, BytesIO
from typing import Any, BinaryIO

from asgictl.messages import WINDOW_BYTES, Headers, Response, Scope
from asgictl.worker.flow import Body, ClientDisconnected, Flow

logger = logging.getLogger("asgictl.worker")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_variables: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
INPUT_BYTES = 64 << 10
PART_BYTES = WINDOW_BYTES // 4  # a larger body goes in parts of this
MAX_VARIABLES = 1000  # names of headers are the client's choice; the cache must not grow with them


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


class WSGIRun:
    """One request on its way through a WSGI application; what precedes the last part leaves at once, by its flow."""

    def __init__(self, flow: Flow) -> None:
        self.entry = flow.entry
        self._event = flow.event
        self._flow = flow
        self._sequence = 0
        self._status = 0
        self._headers: Headers | None = None
        self._written: list[bytes] = []

    def run(self, application: Application) -> Response:
        """Call the application; returns the last part of the response, to be committed.

        An exception is logged once and becomes a 500, or cuts the connection when the response has begun.
        """
        event = self._event
        body: BinaryIO = BufferedReader(Body(self._flow), INPUT_BYTES) if event.more else BytesIO(event.body)
        try:
            result = application(environ_of(event.scope, body), self._start_response)
            try:
                return self._collect(result)
            finally:
                self._close(result)
        except ClientDisconnected as error:
            logger.info("%s %s ended early: %s", event.scope.method, event.scope.path, error)
        except Exception:
            logger.exception("%s %s failed", event.scope.method, event.scope.path)
        return self.failure(500, "Internal Server Error")

    def failure(self, status: int, text: str) -> Response:
        """Return what ends the response when the application does not."""
        if self._sequence:
            return self._part(b"", aborted=True)
        self._status = status
        self._headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % (len(text) + 1))]
        return self._part(text.encode() + b"\n")

    def _close(self, result: Any) -> None:
        try:
            if hasattr(result, "close"):
                result.close()
        except Exception:
            logger.exception("%s %s: close() failed", self._event.scope.method, self._event.scope.path)

    def _collect(self, result: Iterable[bytes]) -> Response:
        """Send parts as they come; a body that is known to be whole becomes a single one."""
        if isinstance(result, (list, tuple)):
            return self._whole(b"".join(self._written + list(result)))
        length: int | None = -1
        for data in result:
            if not isinstance(data, bytes):
                raise TypeError(f"a WSGI application yields bytes, not {type(data).__name__}")
            if length == -1:
                length = self._content_length()
            if data:
                self._written.append(data)
                if length is None or sum(map(len, self._written)) < length:
                    self._flush()
        return self._whole(b"".join(self._written))

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self._sequence:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._headers is not None and not exc_info:
            raise RuntimeError("start_response was called twice without exc_info")
        self._status = int(status[:3])
        self._written.clear()  # of the response that this one replaces
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
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
        if (
            not self._sequence
            and self._headers is not None
            and self._may_have_body()
            and self._content_length() is None
        ):
            self._headers.append((b"content-length", b"%d" % len(body)))
        return self._part(self._send(body, is_last=True))

    def _may_have_body(self) -> bool:
        # HEAD's Content-Length would be that of GET's body, which is not known here (RFC 9110, section 8.6).
        return (
            self._status >= 200
            and self._status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
            and (self._event.scope.method != "HEAD")
        )

    def _content_length(self) -> int | None:
        for name, value in self._headers or ():
            if name == b"content-length":
                return int(value)
        return None

    def _part(self, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
        if self._headers is None:
            raise RuntimeError("the application returned without calling start_response")
        headers = [] if self._sequence else self._headers
        event = self._event
        part = Response(
            *(event.connection, self._sequence, self._status, headers, body, more, aborted),
            *(event.attempt, self._flow.entry, self._flow.inbox if more else ""),
        )
        self._sequence += 1
        return part
