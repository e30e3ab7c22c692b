"""The access log: a line for each request, and two for each WebSocket; no query string, which may hold secrets.

client "method path" connection status bytes milliseconds, and where they are known wait, run (milliseconds) and worker.
"""

import logging
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any
from urllib.parse import quote

from asgictl.wire.asgi import ASGIMessage, Receive, Send
from asgictl.wire.messages import ABNORMAL_CLOSURE

logger = logging.getLogger("asgictl.access")


class Answer:
    """What is told of one request, filled in as it is answered. seconds: from receipt until the response began."""

    __slots__ = ("began", "bytes", "run_seconds", "seconds", "status", "worker")

    def __init__(self) -> None:
        self.began = perf_counter()
        self.status = 0
        self.bytes = 0
        self.seconds = self.run_seconds = 0.0
        self.worker = ""

    def begin(self, status: int) -> None:
        """The response begins now."""
        self.status = status
        self.seconds = perf_counter() - self.began


def log_request(scope: MutableMapping[str, Any], connection: str, answer: Answer) -> None:
    """Log a request that is over."""
    run = answer.run_seconds
    split = f" wait={(answer.seconds - run) * 1000:.1f} run={run * 1000:.1f}" if run else ""
    split += f" worker={answer.worker}" if answer.worker else ""
    milliseconds = (perf_counter() - answer.began) * 1000
    logger.info("%s %d %d %.1fms%s", _who(scope, connection), answer.status, answer.bytes, milliseconds, split)


def _who(scope: MutableMapping[str, Any], connection: str) -> str:
    client, method = (scope.get("client") or ("-",))[0], scope.get("method", "WEBSOCKET")
    path = quote(scope["path"], safe="/:@!$&'()*+,;=~")  # no line feed of a client's makes a line of its own
    return f'{quote(client, safe=":.[]")} "{method} {path}" {connection}'


class WebSocketLog:
    """A WebSocket's receive and send, which log how it opens and how it ends. `code` is the first that either says."""

    def __init__(self, scope: MutableMapping[str, Any], connection: str, receive: Receive, send: Send) -> None:
        self._who = _who(scope, connection)
        self._receive = receive
        self._send = send
        self._began = perf_counter()
        self._is_open = self._is_over = False

    async def receive(self) -> ASGIMessage:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._end(message.get("code") or ABNORMAL_CLOSURE)
        return message

    async def send(self, message: ASGIMessage) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._is_open = True
            logger.info("%s 101 open", self._who)
        elif kind == "websocket.close":
            self._end(message.get("code", 1000) if self._is_open else 403)
        elif kind == "websocket.http.response.start":
            self._end(message["status"])
        await self._send(message)

    def _end(self, code: int) -> None:
        if not self._is_over:
            self._is_over = True
            what = "close" if self._is_open else "refused"
            logger.info("%s %d %s %.1fms", self._who, code, what, (perf_counter() - self._began) * 1000)
