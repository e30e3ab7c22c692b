"""The forwarding part of an interface server: an ASGI application that any ASGI server can host.

It knows nothing of the user's code but the manifest. What it holds is what it has accepted: an Exchange for each HTTP
request and a Session for each WebSocket, from the first byte until the last turn is done.
"""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from itertools import count
from typing import Any

from asgictl.configuration import InterfaceConfig
from asgictl.errors import AsgictlError, WireError
from asgictl.interface.exchange import BodyTooLarge, Exchange, read_body
from asgictl.interface.groups import Groups
from asgictl.interface.session import Receive, Send, Session, denial, travelling
from asgictl.layers.base import Position, process_id
from asgictl.layers.redis import RedisEventLayer
from asgictl.manifest import Router
from asgictl.messages import Reply, Request, Response, TurnEvent
from asgictl.readiness import Readiness

logger = logging.getLogger("asgictl.interface")
RESEND_SECONDS = 0.2  # between attempts to add a turn while Redis is away


class Forwarder:
    """The ASGI application. `ready` is told once it can forward; `readiness` may be left disconnected."""

    def __init__(self, config: InterfaceConfig, readiness: Readiness) -> None:
        self.id = process_id()
        self.groups = Groups()
        self.limits = config.limits
        self._readiness = readiness
        self._exchanges: dict[str, Exchange] = {}
        self._sessions: dict[str, Session] = {}
        self._empty = asyncio.Event()  # set whenever the last session has ended
        self._numbers = count(1)
        self._layer = RedisEventLayer(config.redis_url, config.name, self.id, self._on_reply, self.groups.deliver)
        self._router: Router | None = None
        self._routed: bytes | None = None  # the encoded manifest that _router was made from
        self._sweeper: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._layer.start()
        except AsgictlError as error:
            self._readiness.failed(error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._sweeper = asyncio.create_task(self._sweep())
        self._readiness.ready(id=self.id)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._drain()
        await send({"type": "lifespan.shutdown.complete"})

    async def _drain(self) -> None:
        """The server has closed every socket: let the last turns run, then let go of Redis."""
        if self._sessions:
            self._empty.clear()
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=self.limits.drain_seconds)
        if self._sessions:
            logger.warning("stopped with the last turns of %d connections not run", len(self._sessions))
        if self._sweeper:
            self._sweeper.cancel()
        await self._layer.stop()

    def _new_id(self) -> str:
        return f"{self.id}/{next(self._numbers):x}"

    def _current_router(self) -> Router | None:
        """Follow the newest ready release."""
        if self._layer.manifest is not self._routed and self._layer.manifest is not None:
            self._routed = self._layer.manifest
            try:
                self._router = Router.decode(self._routed)
            except WireError as error:
                logger.error("kept the manifest before: %s", error)
        return self._router

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        router, connection = self._current_router(), self._new_id()
        exchange = Exchange(asyncio.get_running_loop().time() + self.limits.http_deadline_seconds)
        if router is None:
            exchange.fail(connection, 503, "No worker has been ready yet.")
        elif not router.manifest.http:
            exchange.fail(connection, 404, "This application serves no HTTP.")
        else:
            try:
                body = await read_body(scope, receive, self.limits.body_bytes)
            except BodyTooLarge:
                exchange.fail(connection, 413, f"The body is larger than {self.limits.body_bytes} bytes.")
            except ConnectionResetError:
                return
            else:
                self._exchanges[connection] = exchange
                self._layer.append(
                    Request(connection, 1, travelling(scope), body), self._answered(connection, exchange)
                )
        try:
            await exchange.write(send)
        finally:
            self._exchanges.pop(connection, None)

    @staticmethod
    def _answered(connection: str, exchange: Exchange) -> Callable[[object], None]:
        def answered(reply: object) -> None:
            if isinstance(reply, Exception):
                exchange.fail(connection, 503, "The channel layer is away.")

        return answered

    async def _websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        router = self._current_router()
        path = router.match(scope["path"]) if router else None
        if path is None:
            await receive()
            for message in denial(404 if router else 503, "websocket.http.response" in scope.get("extensions", {})):
                await send(message)
            return
        session = Session(self._new_id(), scope, path, self, send)
        self._sessions[session.connection.id] = session
        await session.run(receive)

    def submit(self, session: Session, event: TurnEvent) -> None:
        """Add a turn to its channel; while Redis is away, again and again: its commit runs once."""

        def answered(reply: object) -> None:
            if not isinstance(reply, Exception):
                session.connection.added(event.number)
            elif session.connection.event is event:
                asyncio.get_running_loop().call_later(RESEND_SECONDS, resend)

        def resend() -> None:
            if session.connection.event is event and (again := session.connection.cut()):
                self._layer.append(again, answered)

        self._layer.append(event, answered)

    def closed(self, session: Session) -> None:
        """The session's last turn is done."""
        self._sessions.pop(session.connection.id, None)
        if not self._sessions:
            self._empty.set()

    def _on_reply(self, reply: Reply, position: Position | None) -> None:
        if isinstance(reply, Response):
            if exchange := self._exchanges.get(reply.connection):
                exchange.put(reply)
        elif session := self._sessions.get(reply.connection):
            session.done(reply, position)

    async def _sweep(self) -> None:
        """Answer 504 for requests whose deadline has passed; a timer for each would cost more than this look."""
        while True:
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            for connection, exchange in list(self._exchanges.items()):
                if exchange.deadline <= now:
                    exchange.fail(connection, 504, "No worker answered in time.")
