"""Runs a WSGI application for one request (PEP 3333). By its flow the body comes, and parts of the response leave."""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from io import BufferedReader, BytesIO, RawIOBase
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from asgictl import __version__
from asgictl.app.boundary import UserCode
from asgictl.wire.error_responses import APPLICATION_FAILED
from asgictl.wire.messages import Response, Scope
from asgictl.worker.response import ClientDisconnected, ResponseParts
from asgictl.worker.sync_body import LayerFlow

logger = logging.getLogger("asgictl.wsgi")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
SOFTWARE = f"asgictl/{__version__}"
_ALWAYS: dict[str, Any] = {
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
    "wsgi.file_wrapper": FileWrapper,
    "SERVER_SOFTWARE": SOFTWARE,
}
_variables: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
INPUT_BYTES = 64 << 10
MAX_VARIABLES = 1000  # names of headers are the client's choice; the cache must not grow with them
_is_status = re.compile(r"[2-9]\d\d( |$)").match  # of a final response


class Body(RawIOBase):
    """The request's body as a file, for io.BufferedReader. Nothing is asked of the client before the first read."""

    def __init__(self, flow: LayerFlow) -> None:
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
    raw, query = scope.raw_path.decode("latin-1"), scope.query_string.decode("latin-1")
    root = scope.root_path.encode() if scope.root_path else b""
    environ: dict[str, Any] = {
        **_ALWAYS,
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": root.decode("latin-1"),
        "PATH_INFO": unquote_to_bytes(scope.raw_path.removeprefix(root)).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": f"{raw}?{query}" if query else raw,
        "SERVER_PROTOCOL": "HTTP/" + scope.http_version,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or (443 if scope.scheme == "https" else 80)),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
    }
    if scope.client:
        environ["REMOTE_ADDR"], remote_port = scope.client
        if remote_port:  # a proxy tells only the address
            environ["REMOTE_PORT"] = str(remote_port)
    for name, value in scope.headers:
        variable = _variables.get(name)
        if variable is None:
            variable = _variable(name)
        text = value.decode("latin-1")
        if variable in environ and variable.startswith("HTTP_"):
            text = environ[variable] + ("; " if variable == "HTTP_COOKIE" else ",") + text
        if variable:
            environ[variable] = text
    return environ


def _variable(name: bytes) -> str:
    """Return "" for X_User, which would pass for X-User, which a proxy may have vouched for; gunicorn drops it too."""
    variable = "" if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_variables) < MAX_VARIABLES:
        _variables[name] = variable
    return variable


class WSGIRun:
    """One request on its way through a WSGI application; what precedes the last part leaves at once, by its flow."""

    def __init__(self, flow: LayerFlow) -> None:
        self.entry: bytes = flow.entry
        self._event = flow.event
        self._flow = flow
        self._response = ResponseParts(flow.event, flow.entry, flow.inbox)
        self._written: list[bytes] = []

    def run(self, application: Application) -> Response:
        """Call the application; returns the last part of the response, to be committed.

        An exception is logged once and becomes a 500, or cuts the connection when the response has begun.
        """
        event = self._event
        body: BinaryIO = BufferedReader(Body(self._flow), INPUT_BYTES) if event.more else BytesIO(event.body)
        method, path, headers = event.scope.method, event.scope.path, event.scope.headers
        with UserCode(
            *("%s %s failed", method, path), expected=ClientDisconnected, entry=self.entry, headers=headers
        ) as ended:
            result = application(environ_of(event.scope, body), self._start_response)
            try:
                return self._collect(result)
            finally:
                if type(result) is not list:  # which has nothing to close
                    self._close(result)
        if isinstance(ended.error, ClientDisconnected):
            logger.info("%s %s ended early: %s", method, path, ended.error)
        return self.failure(500, APPLICATION_FAILED)

    def failure(self, status: int, text: str) -> Response:
        """Return what ends the response when the application does not."""
        return self._response.failure(status, text)

    def _close(self, result: Any) -> None:
        scope = self._event.scope
        with UserCode("%s %s: close() failed", scope.method, scope.path):
            if hasattr(result, "close"):
                result.close()

    def _collect(self, result: Iterable[bytes]) -> Response:
        """Send parts as they come; a body that is known to be whole becomes a single one."""
        if isinstance(result, (list, tuple)):
            self._written += result
            return self._finish()
        for data in result:
            if not isinstance(data, bytes):
                raise TypeError(f"a WSGI application yields bytes, not {type(data).__name__}")
            if data:
                self._written.append(data)
                size, left = sum(map(len, self._written)), self._response.left
                if left is None or size < left:
                    self._flush()
                elif size > left:
                    break  # a generator without end must not fill the memory
        return self._finish()

    def _start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        response = self._response
        if exc_info and response.has_begun:
            raise exc_info[1].with_traceback(exc_info[2])
        if response.status and not exc_info:
            raise RuntimeError("start_response was called twice without exc_info")
        if not _is_status(status):
            raise ValueError(f"start_response({status!r}): a status is three digits and a reason, such as '200 OK'")
        self._written.clear()  # of the response that this one replaces
        response.begin(int(status[:3]), headers, is_text=True)
        return self._write

    def _write(self, data: bytes) -> None:
        """PEP 3333's imperative write: what it is given leaves at once."""
        if data:
            self._written.append(data)
            self._flush()

    def _flush(self) -> None:
        body, self._written = b"".join(self._written), []
        for part in self._response.parts(body, lambda: self._flow.credit, more=True):
            self._flow.push(part)

    def _finish(self) -> Response:
        body = b"".join(self._written)
        self._response.announce(len(body))
        for part in self._response.parts(body, lambda: self._flow.credit, more=False):
            if part.more:
                self._flow.push(part)
        return part
