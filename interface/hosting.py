"""Hosts a backend on a listening socket, on the server that the user chose, until SIGTERM or SIGINT.

uvicorn drains by itself. daphne and hypercorn would cancel what runs and cut what is open, so what they host stands
behind a Door, which ends it properly first. What they cannot do even so: docs/servers.md.
"""

import asyncio
import importlib.util
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from asgictl.config import Limits
from asgictl.errors import StartError, TargetError
from asgictl.interface.edge import Backend, Edge
from asgictl.interface.uvicorn_server import EdgeServer, Moves
from asgictl.telemetry.metrics import Figures

if TYPE_CHECKING:
    from asgictl.interface.door import Door

logger = logging.getLogger("asgictl.hosting")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048  # as supervisor.conf has it
PING_SECONDS = 20  # uvicorn's
HYPERCORN_PING_SECONDS = 5  # a socket that has ended sleeps through the last one before hypercorn lets it go
# A server that stops reading while an inbox is full would then miss the pong.
PING_TIMEOUT_SECONDS = 70
FLUSH_SECONDS = 0.02


def check_server(server: str) -> None:
    """Raise StartError unless the server is installed."""
    if importlib.util.find_spec(server) is None:
        raise StartError(f"--server={server}: it is not installed; pip install 'asgictl[{server}]'")


def host(
    backend: Backend,
    listener: socket.socket,
    server: str,
    trusted: str,
    root_path: str,
    options: dict[str, Any],
    moves: Moves | None = None,
) -> bool:
    """Serve, lifespan included, until SIGTERM or SIGINT; then drain. Returns whether the backend had started.

    options: more keywords of uvicorn.Config; other servers take none. moves: hands uvicorn's sockets over.
    Raises StartError when the server is not installed.
    """
    check_server(server)
    limits = backend.limits
    if server == "uvicorn":
        return _uvicorn(Edge(backend, trusted), listener, uvicorn_settings(limits, root_path, options), moves)
    from asgictl.interface.door import Door
    from asgictl.interface.edge_asgi import ASGIEdge

    door = Door(ASGIEdge(backend, trusted), root_path, limits)
    run = _daphne if server == "daphne" else _hypercorn
    return run(door, listener, limits, backend.figures)


def uvicorn_settings(limits: Limits, root_path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what interface servers and in-process servers have alike, for uvicorn.Config."""
    return {
        "loop": "asgictl.app.loops:LastingLoop",
        "http": "asgictl.interface.edge_http:HTTPProtocol",
        "ws": "none",  # edge_http hands sockets to edge_websocket
        "interface": "asgi3",
        "proxy_headers": False,  # edge_http heeds them
        "ws_max_size": limits.message_bytes,
        "ws_ping_timeout": PING_TIMEOUT_SECONDS,
        "ws_per_message_deflate": False,
        "lifespan": "on",
        "root_path": root_path,
        "server_header": False,  # it would stand beside the application's own
        # gunicorn's graceful_timeout does not reach uvicorn (uvicorn#2094)
        "timeout_graceful_shutdown": int(limits.drain_seconds),
        **options,
    }


def _uvicorn(edge: Edge, listener: socket.socket, settings: dict[str, Any], moves: Moves | None) -> bool:
    config = uvicorn.Config(edge, access_log=False, log_config=None, log_level=logging.WARNING, **settings)
    server = EdgeServer(config, edge, moves)
    for number in SIGNALS:  # uvicorn raises them again once it has drained
        signal.signal(number, lambda _number, _frame: None)
    server.run(sockets=[listener])
    return server.started


def _told_to_end(loop: asyncio.AbstractEventLoop, figures: Figures) -> asyncio.Queue[int]:
    """Return the signals that ask this process to end, as they come."""
    told = asyncio.Queue[int]()

    def hear(number: int) -> None:
        figures.draining = 1
        told.put_nowait(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, hear, number)
    return told


async def _told(told: asyncio.Queue[int], limits: Limits) -> None:
    """Wait until this process is to drain, as EdgeServer.handle_exit() has it."""
    if await told.get() == signal.SIGTERM and limits.shutdown_delay_seconds:
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.shutdown_delay_seconds):
                await told.get()


def _hypercorn(door: "Door", listener: socket.socket, limits: Limits, figures: Figures) -> bool:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

    from asgictl.app.loops import LastingLoop

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    config.include_server_header = False
    config.keep_alive_max_requests = sys.maxsize
    config.websocket_max_message_size = limits.message_bytes
    config.websocket_ping_interval = HYPERCORN_PING_SECONDS
    config.graceful_timeout = limits.drain_seconds

    async def main() -> None:
        told = _told_to_end(asyncio.get_running_loop(), figures)

        async def stopped() -> None:
            await _told(told, limits)
            door.close()

        await serve(door, config, shutdown_trigger=stopped, mode="asgi")  # type: ignore[arg-type]

    try:
        # asyncio's own loop waits without a deadline for every connection before hypercorn drains (Python 3.12)
        with asyncio.Runner(loop_factory=LastingLoop) as runner:
            runner.run(main())
    except (LifespanFailureError, LifespanTimeoutError) as error:
        logger.error("%s", error)
        return False
    return True


def _daphne(door: "Door", listener: socket.socket, limits: Limits, figures: Figures) -> bool:
    from daphne.server import twisted_loop  # first: it installs Twisted's asyncio reactor
    from twisted.internet import reactor as any_reactor

    from asgictl.app.lifespan import Lifespan

    logging.getLogger("daphne").setLevel(logging.WARNING)
    loop: asyncio.AbstractEventLoop = twisted_loop
    reactor: Any = any_reactor  # zope's interfaces confuse mypy
    lifespan, told = Lifespan(door), _told_to_end(loop, figures)
    stoppers: list[asyncio.Task[None]] = []

    def listen() -> None:
        server.ws_factory.protocol = _daphne_protocol()
        listener.setblocking(False)  # Twisted accepts until there is nobody left
        port = reactor.adoptStreamPort(listener.fileno(), listener.family, server.http_factory)
        stoppers.append(loop.create_task(_stop_daphne(server, port, reactor, door, told, limits)))

    server = _daphne_server(door, limits, listen)
    try:
        loop.run_until_complete(lifespan.start())
    except TargetError as error:
        logger.error("%s", error)
        return False
    server.run()
    loop.run_until_complete(lifespan.stop(2 * limits.drain_seconds))
    return True


def _daphne_server(door: "Door", limits: Limits, listen: Callable[[], None]) -> Any:
    from daphne.server import Server

    server = Server(
        door,
        endpoints=["listen() has it"],
        signal_handlers=False,
        request_buffer_size=1 << 16,
        websocket_timeout=-1,
        websocket_connect_timeout=math.inf,
        websocket_handshake_timeout=0,
        websocket_max_message_size=limits.message_bytes,
        websocket_max_frame_size=limits.message_bytes,
        ping_interval=PING_SECONDS,
        ping_timeout=PING_TIMEOUT_SECONDS,
        application_close_timeout=math.inf,
        ready_callable=listen,
        server_name="",
        verbosity=2,  # 1 throws Twisted's errors away
    )
    server.endpoints.clear()
    return server


def _daphne_protocol() -> Any:
    from daphne.ws_protocol import WebSocketProtocol

    class Protocol(WebSocketProtocol):  # type: ignore[misc]  # daphne has no types
        failByDrop = False  # noqa: N815 - else too large a message closes nothing, it cuts

        def handle_reply(self, message: Any) -> None:
            """Close as asked for: daphne's own way takes neither a reason nor IANA's codes, such as 1012."""
            if message["type"] == "websocket.close" and self.state == self.STATE_OPEN:
                reason = message.get("reason") or ""
                self.sendCloseFrame(code=message.get("code", 1000), reasonUtf8=reason.encode())
            else:
                super().handle_reply(message)

    return Protocol


async def _stop_daphne(
    server: Any, port: Any, reactor: Any, door: "Door", told: asyncio.Queue[int], limits: Limits
) -> None:
    await _told(told, limits)
    port.stopReading()  # stopListening would remove a Unix socket that is not only ours
    door.close()
    deadline = time.monotonic() + limits.drain_seconds
    await door.drain(limits.drain_seconds)
    while reactor.getWriters() and time.monotonic() < deadline:  # noqa: ASYNC110 - Twisted tells nobody
        await asyncio.sleep(FLUSH_SECONDS)
    # of a connection that has no application at this moment daphne would know only a KeyError
    server.connections = {each: known for each, known in server.connections.items() if "application_instance" in known}
    server.stop()
