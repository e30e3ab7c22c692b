"""A server that speaks ASGI, as a test plays it, and a backend that notes what it is told."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from asgictl.config import Limits
from asgictl.interface.edge import ClientRequest, ClientSocket
from asgictl.interface.edge_asgi import ASGIEdge
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.messages import Close, Frame, Scope
from tests.interface.conftest import settled

ASGIMessage = MutableMapping[str, Any]
DENIAL: dict[str, Any] = {"websocket.http.response": {}}


class Server:
    """One connection of a server: writes when it may, and fails when it is told to."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.sent: list[ASGIMessage] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.error: Exception | None = None

    async def send(self, message: ASGIMessage) -> None:
        await self.may_write.wait()
        if self.error:
            raise self.error
        self.sent.append(message)

    async def says(self, *messages: ASGIMessage) -> None:
        for message in messages:
            self.incoming.put_nowait(message)
        await settled()

    def types(self) -> list[str]:
        return [message["type"].partition(".")[2] for message in self.sent]


class Backend:
    """A Backend, and the handler of everything it is given: notes what it hears."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.figures = Figures()
        self.rejections = Rejections()
        self.scopes: list[Scope] = []
        self.bodies: list[tuple[bytes, int, bool]] = []  # what came with requests, its length, whether more is to come
        self.heard: list[Any] = []
        self.refusal: Close | None = None  # of every handshake
        self.request: ClientRequest
        self.socket: ClientSocket

    def http(self, scope: Scope, body: bytes, length: int, more: bool, client: ClientRequest) -> "Backend":
        self.scopes.append(scope)
        self.bodies.append((body, length, more))
        self.request = client
        return self

    def websocket(self, scope: Scope, client: ClientSocket) -> "Backend | None":
        self.scopes.append(scope)
        self.socket = client
        if self.refusal:
            client.close(self.refusal)
            return None
        return self

    async def lifespan(self, receive: Any, send: Any) -> None:
        self.heard.append(await receive())
        await send({"type": "lifespan.startup.complete"})

    def received(self, data: bytes, more: bool) -> None:
        self.heard.append((data, more))

    def resumed(self) -> None:
        self.heard.append("resumed")

    def gone(self) -> None:
        self.heard.append("gone")

    def receive(self, frame: Frame) -> None:
        self.heard.append(frame)

    def left(self, code: int, reason: str) -> None:
        self.heard.append((code, reason))


class Client(Server):
    """A server's connection to an edge, and its backend."""

    def __init__(self, kind: str = "http", trusted: str = "", backend: Backend | None = None, **scope: Any) -> None:
        super().__init__()
        self.backend = backend or Backend()
        scope = {"type": kind, "path": "/", "headers": [], **scope}
        if kind == "websocket":
            self.incoming.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.ensure_future(ASGIEdge(self.backend, trusted)(scope, self.incoming.get, self.send))

    @property
    def heard(self) -> list[Any]:
        return self.backend.heard


async def requested(*messages: ASGIMessage, **scope: Any) -> Client:
    client = Client(**scope)
    await client.says(*messages)
    return client


async def connected(**scope: Any) -> Client:
    client = Client("websocket", **scope)
    await settled()
    return client


def chunk(body: bytes, *, more: bool) -> ASGIMessage:
    return {"type": "http.request", "body": body, "more_body": more}
