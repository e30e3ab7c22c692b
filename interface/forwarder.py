"""The forwarding part of an interface server: the Backend of its edge.

It knows nothing of the user's code but the manifest. What it holds is what it has accepted: a PendingRequest for each
HTTP request and a socket for each WebSocket, from the first byte until the last turn is done.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from itertools import count

from asgictl.config import InterfaceConfig, Limits
from asgictl.errors import AsgictlError, WireError
from asgictl.interface.affinity import route_of
from asgictl.interface.consumer_socket import ConsumerSocket
from asgictl.interface.edge import ClientRequest, ClientSocket, MovableSocket
from asgictl.interface.groups import Groups
from asgictl.interface.in_flight import InFlight
from asgictl.interface.pending_request import PendingRequest
from asgictl.interface.stream_socket import StreamSocket
from asgictl.layers.base import Answered, EventLayer, Position, ignored, process_id
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.layers.redis.keys import interface_of
from asgictl.machine.ticks import until_tick
from asgictl.telemetry.access_log import WebSocketLog, log_request
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.metrics import CLIENT_GONE, Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.error_responses import (
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    ENDING,
    INTERFACE_FENCED,
    NO_ANSWER_IN_TIME,
    NO_HTTP,
    NO_WORKER_YET,
    REDIS_AWAY,
    TOO_MANY,
)
from asgictl.wire.manifest import Router
from asgictl.wire.messages import (
    SERVICE_RESTART,
    WINDOW_BYTES,
    Close,
    Connect,
    Died,
    Done,
    Gone,
    Lost,
    Reply,
    Request,
    Response,
    Scope,
    TurnEvent,
    Want,
    WorkerMessage,
)
from asgictl.wire.naming import name_of

logger = logging.getLogger("asgictl.interface")
BUDGET_BYTES = 128 << 20  # of responses that may be on their way to this interface
BUDGET_SHARE = 64  # one request is promised at most this part of what is left of it
SWEEP_SECONDS = 1.0
LEAST_CREDIT_BYTES = 4 << 10  # with which a response comes forward at all


class Forwarder:
    """A Backend. `readiness` hears once it can forward, and may be left disconnected.

    make_layer: takes RedisEventLayer's arguments. keeps: why its sockets cannot move, as it reports.
    """

    def __init__(
        self,
        config: InterfaceConfig,
        readiness: Readiness,
        make_layer: Callable[..., EventLayer] = RedisEventLayer,
        keeps: str = "",
    ) -> None:
        self.id: str = process_id()
        self.groups: Groups = Groups()
        self.limits: Limits = config.limits
        self.figures: Figures = Figures()
        self.rejections: Rejections = Rejections()
        self._access_log = config.access_log
        self._affinity = config.affinity
        self._readiness = readiness
        self._keeps = keeps
        self._pending_requests: dict[str, PendingRequest] = {}
        self.sockets: dict[str, ConsumerSocket | StreamSocket] = {}
        self.held_back: set[str] = set()  # connections that begin no turns but their last ones, as they are to move
        self.on_opened: Callable[[str], None] = ignored  # called with each connection; a hand-over counts them
        self.on_closed: Callable[[str], None] = ignored
        self._empty = asyncio.Event()  # set whenever the last socket has ended
        self.is_fenced: bool = False
        self._dropped: set[str] = set()  # identities that others took for dead while this process had their sockets
        self._numbers = count(1)
        self._layer: EventLayer = make_layer(
            *(config.redis_url, config.name, self.id, self._on_reply, self.groups.deliver),
            on_forgotten=self._forgotten,
            on_fenced=self._fenced,
            reject=self.rejections.add,
            record=readiness.record,
        )
        self._in_flight: InFlight = InFlight(
            self._layer, config.limits.channel_events, self.rejections.add, config.limits.channel_bytes
        )
        self._budget = BUDGET_BYTES
        self._router: Router | None = None
        self._routed: bytes | None = None  # the encoded manifest that _router was made from
        self._sweeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Start, and stop once the server has (ASGI, lifespan protocol)."""
        await receive()
        try:
            await self.start()
        except AsgictlError as error:
            self._readiness.failed(error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._readiness.ready(self.counted, ids=self._layer.identities, keeps=self._keeps)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.drain()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Begin to forward; raises AsgictlError."""
        self._loop = asyncio.get_running_loop()
        await self._layer.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def drain(self) -> None:
        """The server has closed every socket: let the last turns run, then let go of the layer."""
        for pending in list(self._pending_requests.values()):  # which the server has waited for long enough
            self._refuse(pending, 503, ENDING)
        if self.sockets:
            self._empty.clear()
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=self.limits.drain_seconds)
        if self.sockets:
            logger.warning("stopped before the last turns of %d connections had run", len(self.sockets))
        else:
            await self._layer.deregister()
        if self._sweeper:
            self._sweeper.cancel()
        await self._layer.stop()

    def new_id(self, identity: int = 0) -> str:
        """Return a connection's id. identity: which of the layer's it begins with."""
        return f"{self._layer.identities[identity]}/{next(self._numbers):x}"

    def _current_router(self) -> Router | None:
        """Follow the newest ready release."""
        if self._layer.manifest is not self._routed and self._layer.manifest is not None:
            self._routed = self._layer.manifest
            try:
                self._router = Router.decode(self._routed)
            except WireError as error:
                logger.error("kept the previous manifest: %s", error)
        return self._router

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> PendingRequest:
        """Send a request to a worker, or refuse it (see edge.Backend)."""
        limits, connection = self.limits, self.new_id()
        credit = max(min(WINDOW_BYTES, self._budget // BUDGET_SHARE), LEAST_CREDIT_BYTES)
        event = Request(connection, 1, scope, body, more, credit)
        ours = (self._layer.post, self._ended, limits.body_bytes, limits.http_deadline_seconds, self._loop)
        pending = self._pending_requests[connection] = PendingRequest(event, client, *ours)
        self._budget -= credit
        if length > limits.body_bytes or len(body) > limits.body_bytes:
            self._refuse(pending, 413, BODY_TOO_LARGE.format(limits.body_bytes))
        elif self._takes(pending, client):
            self._in_flight.send(event, pending)
        return pending

    def _ended(self, pending: PendingRequest) -> None:
        """The response is written, or the client has left."""
        event = pending.event
        if self._pending_requests.pop(event.connection, None) is None:
            return
        self._budget += event.credit
        if pending.is_gone:
            if pending.answer.status == CLIENT_GONE:
                self.rejections.add("requests dropped: the client left before the response")
            self._in_flight.skip(event.connection, lambda: None)
        self._in_flight.complete(event.connection)
        answer = pending.answer
        self.figures.answer(answer.status, answer.seconds, answer.run_seconds)
        if self._access_log:
            log_request(event.scope, event.connection, answer)

    def _takes(self, pending: PendingRequest, client: ClientRequest) -> bool:
        """Whether a worker is to see this request; else it is answered here."""
        router = self._current_router()
        if router is None:
            self._refuse(pending, 503, NO_WORKER_YET)
        elif self.is_fenced:
            self._refuse(pending, 503, ENDING)
        elif not router.manifest.http:
            pending.fail(404, NO_HTTP)
        else:
            scope = pending.event.scope
            pending.pool = router.pool(scope.local_path)
            if router.manifest.mounts and router.is_asgi(scope.local_path):
                pending.route = route_of(self._affinity, client, scope, self._layer)
            if not self._in_flight.full(Request.channel + pending.pool):
                return True
            self._refuse(pending, 503, TOO_MANY)
        return False

    def _refuse(self, pending: PendingRequest, status: int, why: str) -> None:
        self.rejections.add(f"requests answered {status}: {why}")
        pending.fail(status, why)

    def websocket(self, scope: Scope, client: ClientSocket) -> ConsumerSocket | StreamSocket | None:
        """Have a worker answer a handshake, or refuse it (see edge.Backend)."""
        router = self._current_router()
        connection = self.new_id(0 if router and router.manifest.is_asgi else -1)
        if self._access_log:
            client.log = WebSocketLog(scope, connection)
        path = router.match(scope.local_path) if router else None
        if path is None or self._in_flight.full(Connect.channel + path.pool):
            if path or not router:
                self.rejections.add("handshakes rejected with 503: no worker ready, or channel full")
            client.close(Close(1000, "", 404 if router and not path else 503))
            return None
        socket: ConsumerSocket | StreamSocket
        if router and router.manifest.is_asgi:
            socket = StreamSocket(connection, scope, path.pool, self, client)
            socket.route = route_of(self._affinity, client, scope, self._layer)
        else:
            socket = ConsumerSocket(connection, scope, path, self, client)
        self.sockets[socket.id] = socket
        self.on_opened(socket.id)
        socket.open()
        return socket

    def submit(self, socket: ConsumerSocket | StreamSocket, event: TurnEvent) -> None:
        """Send a turn on its way; once fenced, what is left of a connection is no longer ours to run."""
        if not (self.is_fenced or interface_of(socket.id) in self._dropped):
            self._in_flight.send(event, socket)

    def closed(self, socket: ConsumerSocket | StreamSocket) -> None:
        """The socket's last turn is done."""
        if socket.id in self.sockets:
            self._layer.forget(socket.id)
            self._remove(socket.id)

    def _remove(self, connection: str) -> None:
        del self.sockets[connection]
        self.held_back.discard(connection)
        self.on_closed(connection)
        if not self.sockets:
            self._empty.set()

    # A hand-over's calls.

    def holds_back(self, socket: ConsumerSocket) -> bool:
        """Whether no more turns are to begin here but the last ones of what ends, as the socket is to move."""
        return socket.id in self.held_back

    def of_identity(self, identity: str) -> list[ConsumerSocket]:
        """Return the sockets whose ids begin with an identity."""
        every = self.sockets.values()
        return [each for each in every if isinstance(each, ConsumerSocket) and interface_of(each.id) == identity]

    def give(self, socket: ConsumerSocket, client: MovableSocket) -> None:
        """Let go of a suspended socket: it is another process's from now on."""
        socket.forget(client)
        self._remove(socket.id)

    def take(self, socket: ConsumerSocket, scope: Scope) -> None:
        """Have a socket that was another process's."""
        if self._access_log:
            socket.client.log = WebSocketLog(scope, socket.id)
        self.sockets[socket.id] = socket

    def hear_moved(self, reply: Reply, position: Position | None, entry: Position) -> bool:
        """Apply a reply to a socket that was another process's, unless that process has; returns whether it is here."""
        socket = None if isinstance(reply, Died) else self.sockets.get(reply.connection)
        if isinstance(socket, ConsumerSocket) and not socket.has_had(entry):
            self._on_reply(reply, position)
        return socket is not None

    def drop(self, identity: str) -> None:
        """Close an identity's sockets, and run nothing more of them: others do."""
        self._dropped.add(identity)
        for socket in self.of_identity(identity):
            self._in_flight.complete(socket.id)
            self._remove(socket.id)
            socket.client.close(Close(SERVICE_RESTART, ""))

    def skip(self, socket: ConsumerSocket | StreamSocket) -> None:
        """Nobody waits for the socket's handshake any more."""
        self._in_flight.skip(socket.id, socket.skipped)

    def post(self, inbox: str, message: WorkerMessage, answered: Answered) -> None:
        """Send a message to a worker."""
        self._layer.post(inbox, message, answered)

    def give_up(self, socket: ConsumerSocket, event: TurnEvent, reason: str) -> None:
        """An event that is not run again is kept for somebody to look at."""
        self.rejections.add("events dead-lettered: see asgictl dead-letters list")
        self._layer.dead_letter(event.channel + socket.pool, event, reason)

    def _on_reply(self, reply: Reply, position: Position | None) -> None:
        if isinstance(reply, Response | Want) and (pending := self._pending_requests.get(reply.connection)):
            if isinstance(reply, Response):
                pending.put(reply)
            else:
                pending.want(reply)
        elif isinstance(reply, Died):
            self._end_relays(reply.worker + ".")
        elif isinstance(reply, Lost):
            self._in_flight.lost(reply)
        elif socket := self.sockets.get(reply.connection):
            if socket.is_answered_by(reply):
                self._in_flight.complete(reply.connection)
            socket.answer(reply, position)
        elif isinstance(reply, (Response, Want, Done)) and reply.inbox:
            self._tell_gone(reply)

    def _tell_gone(self, reply: Response | Want | Done) -> None:
        self._layer.post(reply.inbox, Gone(reply.connection, reply.entry), lambda _answer: None)

    def _end_relays(self, inbox: str) -> None:
        """The sockets of ASGI applications end with what their workers know of them."""
        for each in list(self.sockets.values()):
            if isinstance(each, StreamSocket) and each.inbox and each.inbox.startswith(inbox):
                each.died()

    def _forgotten(self) -> None:
        """Redis has forgotten everything: send what is open again; but what is pending for a worker is lost to it."""
        self._end_relays("")
        self._in_flight.forgotten()

    def _fenced(self, _identity: str) -> None:
        """We stood still for so long that others took us for dead: our connections are theirs to end. Stop."""
        if self.is_fenced:  # a second SIGINT would cut sockets off
            return
        logger.error("fenced: the lease of this interface expired; it closes its sockets and ends")
        self.is_fenced = True
        self._in_flight.clear()
        self.sockets.clear()
        self._empty.set()
        for pending in list(self._pending_requests.values()):
            pending.fail(502, INTERFACE_FENCED)  # no worker can reply to it any more
        # Whichever server hosts us closes its sockets with 1012; after SIGINT it waits for no --shutdown-delay.
        os.kill(os.getpid(), signal.SIGINT)

    def counted(self) -> Figures:
        """Return the figures, with what is open now."""
        self.figures.http, self.figures.websockets = len(self._pending_requests), len(self.sockets)
        return self.figures

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(until_tick(SWEEP_SECONDS))
            self._look()

    def _look(self) -> None:
        """Answer for requests whose deadline has passed; a timer for each would cost more than this look."""
        now, late = self._loop.time(), list[str]()
        for connection, pending in list(self._pending_requests.items()):
            if pending.deadline <= now and pending.waits_for_body:
                self._refuse(pending, 408, BODY_TOO_SLOW)
            elif pending.deadline <= now and self._in_flight.added(connection):
                self._in_flight.skip(connection, lambda: None)
                late.append(name_of(pending.event))
                self._refuse(pending, 504, NO_ANSWER_IN_TIME)
            elif pending.deadline <= now:
                self._refuse(pending, 503, REDIS_AWAY)
        if late:
            more = f" and {len(late) - 1} more" if late[1:] else ""
            logger.warning("%s%s: not answered within %g s: 504", late[0], more, self.limits.http_deadline_seconds)
        self._in_flight.audit()
        self.counted()
        self.figures.rejections = self.rejections.snapshot()
        self.figures.redis_silent_seconds = self._layer.silent_seconds
