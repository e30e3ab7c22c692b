"""The bytes of one request between an ASGI server and a thread of the same process that runs WSGI."""

import asyncio
from collections.abc import Awaitable, MutableMapping
from typing import Any, TypeVar

from asgictl.interface.consumer_socket import travelling
from asgictl.interface.pending_request import Aborted
from asgictl.machine import forks
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.messages import WINDOW_BYTES, Request, Response
from asgictl.worker.wsgi import ClientDisconnected

T = TypeVar("T")


class DirectFlow:
    """Made on the event loop; pull and push are for the thread, finish for the event loop again."""

    entry = b""
    inbox = ""
    credit = WINDOW_BYTES  # the server's own flow control says when a part has been taken

    def __init__(self, id: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        names = {name for name, value in scope["headers"] if value != b"0"}
        has_body = bool(names & {b"content-length", b"transfer-encoding"})  # RFC 9112, section 6.3
        self.event = Request(id, 1, travelling(scope), b"", more=has_body)
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._has_ended = not has_body
        self._watcher: asyncio.Task[None] | None = None
        self._is_gone = False
        self.run_seconds = 0.0  # that the application took until its response began

    def pull(self) -> bytes:
        """Wait for the next bytes of the body; b"" at its end. Raises ClientDisconnected."""
        while not self._has_ended:
            message = self._wait_for(self._receive())
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client has gone")
            self._has_ended = not message.get("more_body", False)
            if data := message.get("body", b""):
                return bytes(data)
        return b""

    def push(self, part: Response) -> None:
        """Write a part, once the client has taken enough of those before it. Raises ClientDisconnected."""
        self._wait_for(self._write(part))
        if self._is_gone:
            raise ClientDisconnected("the client has gone")

    async def finish(self, part: Response) -> None:
        """Write the last part; raises Aborted when the application failed after the response had begun."""
        try:
            if part.aborted:
                raise Aborted
            await self._write(part)
        finally:
            if self._watcher:
                self._watcher.cancel()

    async def _write(self, part: Response) -> None:
        if part.sequence == 0:
            self.run_seconds = part.run_seconds
            await self._send({"type": "http.response.start", "status": part.status, "headers": part.headers})
        await self._send({"type": "http.response.body", "body": part.body, "more_body": part.more})
        if part.more and self._has_ended and self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        """A server need not raise when it writes to a client that has left (ASGI, HTTP: disconnected client)."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True

    def _wait_for(self, awaited: Awaitable[T]) -> T:
        forks.end_child()  # nobody would answer: the event loop is its parent's

        async def wait() -> T:
            return await awaited

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()
