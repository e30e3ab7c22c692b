"""The forwarding part of an interface server: an ASGI application that any ASGI server can host.

It knows nothing of the user's code but the manifest. What it holds is what it has accepted: an Exchange for each HTTP
request and a Session for each WebSocket, from the first byte until the last turn is done.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, MutableMapping
from itertools import count
from math import inf
from typing import Any

from asgictl.configuration import InterfaceConfig
from asgictl.errors import AsgictlError, WireError
from asgictl.interface.exchange import BodyTooLarge, ClientGone, Exchange, read_body
from asgictl.interface.flights import Flights
from asgictl.interface.groups import Groups
from asgictl.interface.outbox import denial
from asgictl.interface.relay import Relay
from asgictl.interface.session import Session, can_deny, local_path, travelling
from asgictl.layers.base import Answered, EventLayer, Position, process_id
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.telemetry.access_log import WebSocketLog, log_request
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.metrics import CLIENT_GONE, Figures
from asgictl.telemetry.shed import Shed
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.manifest import Router
from asgictl.wire.messages import (
    WINDOW_BYTES,
    Close,
    Connect,
    Died,
    Done,
    Gone,
    Letter,
    Lost,
    Reply,
    Request,
    Response,
    TurnEvent,
    Want,
)

logger = logging.getLogger("asgictl.interface")
BUDGET_BYTES = 128 << 20  # of responses that may be on their way to this interface
BUDGET_SHARE = 64  # one request is promised at most this part of what is left of it
SWEEP_SECONDS = 1.0  # after which it is noticed, too, that the client of a waiting request has left
LEAST_CREDIT_BYTES = 4 << 10  # with which a response comes forward at all


class Forwarder:
    """The ASGI application. `ready` is told once it can forward; `readiness` may be left disconnected.

    make_layer: takes RedisEventLayer's arguments.
    """

    def __init__(
        self, config: InterfaceConfig, readiness: Readiness, make_layer: Callable[..., EventLayer] = RedisEventLayer
    ) -> None:
        self.id = process_id()
        self.groups = Groups()
        self.limits = config.limits
        self.figures = Figures()
        self.shed = Shed()
        self._access_log = config.access_log
        self._readiness = readiness
        self._exchanges: dict[str, Exchange] = {}
        self._sessions: dict[str, Session | Relay] = {}
        self._empty = asyncio.Event()  # set whenever the last session has ended
        self._is_fenced = False
        self._numbers = count(1)
        self._layer: EventLayer = make_layer(
            *(config.redis_url, config.name, self.id, self._on_reply, self.groups.deliver),
            on_forgotten=self._forgotten,
            on_fenced=self._fenced,
        )
        self._flights: Flights = Flights(self._layer, config.limits.channel_events, self.shed.add)
        self._budget = BUDGET_BYTES
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
        self._readiness.ready(lambda: self.figures, id=self.id)
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
        limits, connection = self.limits, self._new_id()
        credit = max(min(WINDOW_BYTES, self._budget // BUDGET_SHARE), LEAST_CREDIT_BYTES)
        event = Request(connection, 1, travelling(scope), b"", False, credit)
        exchange = Exchange(event, receive, self._layer.post, limits.body_bytes, limits.http_deadline_seconds)
        self._exchanges[connection] = exchange
        self._budget -= credit
        try:
            if self._takes(exchange):
                await self._forward(exchange, scope, receive)
            await exchange.write(send)
        except ClientGone:
            exchange.answer.status = exchange.answer.status or CLIENT_GONE
            self.shed.add("requests whose client left before the response")
            self._flights.skip(connection, lambda: None)
        finally:
            self._budget += credit
            del self._exchanges[connection]
            self._flights.land(connection)
            answer = exchange.answer
            self.figures.answer(answer.status, answer.seconds, answer.run_seconds)
            if self._access_log:
                log_request(scope, connection, answer)

    async def _forward(self, exchange: Exchange, scope: MutableMapping[str, Any], receive: Receive) -> None:
        limit = self.limits.body_bytes
        try:
            body, more = await read_body(scope, receive, limit, self.limits.http_deadline_seconds)
        except BodyTooLarge:
            self._refuse(exchange, 413, f"The body is larger than {limit} bytes.")
        except TimeoutError:
            self._refuse(exchange, 408, "The body did not come in time.")
        else:
            self._flights.send(exchange.begin(body, more), exchange)

    def _takes(self, exchange: Exchange) -> bool:
        """Whether a worker is to see this request; else it is answered here."""
        router = self._current_router()
        if router is None:
            self._refuse(exchange, 503, "No worker has been ready yet.")
        elif self._is_fenced:
            self._refuse(exchange, 503, "This interface is ending.")
        elif not router.manifest.http:
            exchange.fail(404, "This application serves no HTTP.")
        else:
            exchange.pool = router.pool(exchange.event.scope.local_path)
            if not self._flights.full(Request.channel + exchange.pool):
                return True
            self._refuse(exchange, 503, "Too many requests are waiting.")
        return False

    def _refuse(self, exchange: Exchange, status: int, why: str) -> None:
        self.shed.add(f"requests answered {status}: {why}")
        exchange.fail(status, why)

    async def _websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        router = self._current_router()
        connection = self._new_id()
        if self._access_log:
            log = WebSocketLog(scope, connection, receive, send)
            receive, send = log.receive, log.send
        path = router.match(local_path(scope)) if router else None
        if path is None or self._flights.full(Connect.channel + path.pool):
            if path or not router:
                self.shed.add("handshakes refused with 503")
            await receive()
            status = 404 if router and not path else 503
            for message in denial(Close(1000, "", status), can_deny(scope)):
                await send(message)
            return
        session: Session | Relay
        if router and router.manifest.is_asgi:
            session = Relay(connection, scope, path.pool, self, send)
        else:
            session = Session(connection, scope, path, self, send)
        self._sessions[session.id] = session
        await session.run(receive)

    def submit(self, session: Session | Relay, event: TurnEvent) -> None:
        """Send a turn on its way; once fenced, what is left of a connection is no longer ours to run."""
        if not self._is_fenced:
            self._flights.send(event, session)

    def closed(self, session: Session | Relay) -> None:
        """The session's last turn is done."""
        if self._sessions.pop(session.id, None):
            self._layer.forget(session.id)
        if not self._sessions:
            self._empty.set()

    def skip(self, session: Session | Relay) -> None:
        """Nobody waits for the session's handshake any more."""
        self._flights.skip(session.id, session.skipped)

    def post(self, inbox: str, letter: Letter, answered: Answered) -> None:
        """Send a letter to a worker."""
        self._layer.post(inbox, letter, answered)

    def give_up(self, session: Session, event: TurnEvent, reason: str) -> None:
        """An event that is not run again is kept for somebody to look at."""
        self.shed.add("events given up: see asgictl dead-letters")
        self._layer.bury(event.channel + session.pool, event, reason)

    def _on_reply(self, reply: Reply, position: Position | None) -> None:
        if isinstance(reply, Died):
            self._end_relays(reply.worker + ".")
        elif isinstance(reply, Lost):
            self._flights.lost(reply)
        elif exchange := self._exchanges.get(reply.connection):
            if isinstance(reply, Response):
                exchange.put(reply)
            elif isinstance(reply, Want):
                exchange.want(reply)
            if exchange.is_answered:  # a client that is slow to take it keeps no room on the channel
                self._flights.land(reply.connection)
        elif session := self._sessions.get(reply.connection):
            if session.is_answered_by(reply):
                self._flights.land(reply.connection)
            session.answer(reply, position)
        elif isinstance(reply, (Response, Want, Done)) and reply.inbox:
            self._tell_gone(reply)

    def _tell_gone(self, reply: Response | Want | Done) -> None:
        self._layer.post(reply.inbox, Gone(reply.connection, reply.entry), lambda _answer: None)

    def _end_relays(self, inbox: str) -> None:
        """The sockets of ASGI applications end with what their workers know of them."""
        for each in list(self._sessions.values()):
            if isinstance(each, Relay) and each.inbox and each.inbox.startswith(inbox):
                each.died()

    def _forgotten(self) -> None:
        """Redis has forgotten everything: send what is open again; but what a worker has in hand is lost to it."""
        self._end_relays("")
        self._flights.forgotten()

    def _fenced(self) -> None:
        """We stood still for so long that others took us for dead: our connections are theirs to end. Stop."""
        logger.error("fenced: this interface was taken for dead; it closes its sockets and ends")
        self._is_fenced = True
        self._flights.clear()
        self._sessions.clear()
        self._empty.set()
        for exchange in self._exchanges.values():
            exchange.fail(502, "This interface was taken for dead.")  # no worker can reply to it any more
        os.kill(os.getpid(), signal.SIGTERM)  # whichever server hosts us closes its sockets with 1012

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._look()

    def _look(self) -> None:
        """Answer for requests whose deadline has passed; a timer for each would cost more than this look."""
        now = asyncio.get_running_loop().time()
        for connection, exchange in list(self._exchanges.items()):
            if exchange.deadline <= now and self._flights.added(connection):
                self._refuse(exchange, 504, "No worker answered in time.")
                self._flights.skip(connection, lambda: None)
            elif exchange.deadline <= now:
                self._refuse(exchange, 503, "The channel layer is away.")
            elif exchange.deadline < inf and not exchange.event.more:  # before, its body is still being read
                exchange.listen()
        self._flights.audit()
        self.figures.http, self.figures.websockets = len(self._exchanges), len(self._sessions)
        self.figures.shed = self.shed.tell()
