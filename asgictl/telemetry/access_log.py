"""The access log: a line for each request, and two for each WebSocket; no query string, which may hold secrets.

client "method path" connection status bytes milliseconds, and where they are known wait, run (milliseconds) and worker.
"""

import logging
from time import perf_counter
from urllib.parse import quote

from asgictl.wire.messages import Scope

logger = logging.getLogger("asgictl.access")


class Answer:
    """What is told of one request, filled in as it is answered. seconds: from receipt until the response began."""

    __slots__ = ("began", "bytes", "run_seconds", "seconds", "status", "worker")

    def __init__(self) -> None:
        self.began: float = perf_counter()
        self.status: int = 0
        self.bytes: int = 0
        self.seconds: float = 0.0
        self.run_seconds: float = 0.0
        self.worker: str = ""

    def begin(self, status: int) -> None:
        """The response begins now."""
        self.status = status
        self.seconds = perf_counter() - self.began


def log_request(scope: Scope, connection: str, answer: Answer) -> None:
    """Log a request that is over."""
    run = answer.run_seconds
    split = f" wait={(answer.seconds - run) * 1000:.1f} run={run * 1000:.1f}" if run else ""
    split += f" worker={answer.worker}" if answer.worker else ""
    milliseconds = (perf_counter() - answer.began) * 1000
    logger.info("%s %d %d %.1fms%s", _who(scope, connection), answer.status, answer.bytes, milliseconds, split)


def _who(scope: Scope, connection: str) -> str:
    client, method = (scope.client or ("-",))[0], scope.method or "WEBSOCKET"
    path = quote(scope.path, safe="/:@!$&'()*+,;=~")  # no line feed of a client's makes a line of its own
    return f'{quote(client, safe=":.[]")} "{method} {path}" {connection}'


class WebSocketLog:
    """Logs how a WebSocket opens and how it ends; the first end counts. Without a scope it logs nothing."""

    def __init__(self, scope: Scope | None, connection: str = "") -> None:
        self._who = _who(scope, connection) if scope else ""
        self._began = perf_counter()
        self._is_open = False

    def go_on(self) -> None:
        """Log only the end: another process has logged the opening."""
        self._is_open = True

    def open(self) -> None:
        """Log that the handshake is accepted."""
        if self._who:
            self._is_open = True
            logger.info("%s 101 open", self._who)

    def end(self, code: int) -> None:
        """Log a close code, or the status with which the handshake is refused."""
        if self._who:
            what = "close" if self._is_open else "refused"
            logger.info("%s %d %s %.1fms", self._who, code, what, (perf_counter() - self._began) * 1000)
            self._who = ""


UNLOGGED = WebSocketLog(None)
