"""The forwarding part of an interface server: an ASGI application that any ASGI server can host.

It knows nothing of the user's code but the manifest. What it holds is what it has accepted: an Exchange for each HTTP
request and a Session for each WebSocket, from the first byte until the last turn is done.
"""

import asyncio
import logging
import os
import signal
from collections.abc import MutableMapping
from itertools import count
from typing import Any

from msgspec.structs import replace

from asgictl.configuration import InterfaceConfig
from asgictl.errors import AsgictlError, WireError
from asgictl.interface.exchange import BodyTooLarge, Exchange, read_body
from asgictl.interface.flights import Flights
from asgictl.interface.groups import Groups
from asgictl.interface.session import Receive, Send, Session, denial, travelling
from asgictl.layers.base import Position, process_id
from asgictl.layers.redis import RedisEventLayer
from asgictl.manifest import Router
from asgictl.messages import Lost, Reply, Request, Response, TurnEvent
from asgictl.readiness import Readiness

logger = logging.getLogger("asgictl.interface")


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
        self._is_fenced = False
        self._numbers = count(1)
        self._layer = RedisEventLayer(
            *(config.redis_url, config.name, self.id, self._on_reply, self.groups.deliver),
            on_forgotten=lambda: self._flights.forgotten(),
            on_fenced=self._fenced,
        )
        self._flights = Flights(self._layer)
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
        else:
            await self._layer.goodbye()
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
        deadline = asyncio.get_running_loop().time() + self.limits.http_deadline_seconds
        exchange = Exchange(self._new_id(), travelling(scope), deadline)
        router, connection = self._current_router(), exchange.event.connection
        if router is None:
            exchange.fail(503, "No worker has been ready yet.")
        elif not router.manifest.http:
            exchange.fail(404, "This application serves no HTTP.")
        elif self._flights.open[Request.channel] >= self.limits.channel_events:
            exchange.fail(503, "Too many requests are waiting.")
        else:
            try:
                body = await read_body(scope, receive, self.limits.body_bytes)
            except BodyTooLarge:
                exchange.fail(413, f"The body is larger than {self.limits.body_bytes} bytes.")
            except ConnectionResetError:
                return
            else:
                if body:
                    exchange.event = replace(exchange.event, body=body)
                self._exchanges[connection] = exchange
                self._flights.send(exchange.event, exchange)
        try:
            await exchange.write(send)
        finally:
            self._exchanges.pop(connection, None)
            self._flights.land(connection)

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
        """Send a turn on its way; once fenced, what is left of a connection is no longer ours to run."""
        if not self._is_fenced:
            self._flights.send(event, session)

    def closed(self, session: Session) -> None:
        """The session's last turn is done."""
        self._sessions.pop(session.connection.id, None)
        if not self._sessions:
            self._empty.set()

    def _on_reply(self, reply: Reply, position: Position | None) -> None:
        if isinstance(reply, Response):
            if exchange := self._exchanges.get(reply.connection):
                exchange.put(reply)
        elif isinstance(reply, Lost):
            self._flights.lost(reply)
        elif (session := self._sessions.get(reply.connection)) and reply.number == session.connection.number:
            self._flights.land(reply.connection)
            session.done(reply, position)

    def _fenced(self) -> None:
        """We stood still for so long that others took us for dead: our connections are theirs to end. Stop."""
        logger.error("fenced: this interface was taken for dead; it closes its sockets and ends")
        self._is_fenced = True
        for session in list(self._sessions.values()):
            self._flights.land(session.connection.id)
        self._sessions.clear()
        for exchange in self._exchanges.values():
            exchange.fail(502, "This interface was taken for dead.")  # no worker can reply to it any more
        os.kill(os.getpid(), signal.SIGTERM)  # whichever server hosts us closes its sockets with 1012

    async def _sweep(self) -> None:
        """Answer for requests whose deadline has passed; a timer for each would cost more than this look."""
        while True:
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            for connection, exchange in list(self._exchanges.items()):
                if exchange.deadline <= now and self._flights.added(connection):
                    exchange.fail(504, "No worker answered in time.")
                elif exchange.deadline <= now:
                    exchange.fail(503, "The channel layer is away.")
            self._flights.audit()
