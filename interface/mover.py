"""Moves WebSockets between this interface process and the one that replaces it, or that it replaces.

handover.py decides; giver.py and taker.py carry it out. Each process listens on a Unix socket in the run directory.
Whoever has a process drain names its successor in a file before; without one, or if that one does not answer, sockets
are closed as everywhere.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from asgictl.config import InterfaceConfig
from asgictl.interface.edge import Edge
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.interface.forwarder import Forwarder
from asgictl.interface.giver import LOOK_SECONDS, Giver
from asgictl.interface.handover import HANDOVER_SECONDS
from asgictl.interface.handover_common import Common
from asgictl.interface.taker import Taker
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.layers.redis.keys import interface_of
from asgictl.machine.run_dir import handover_path, successor_path
from asgictl.telemetry.controller_client import Readiness

logger = logging.getLogger("asgictl.handover")
CONNECT_SECONDS = 2.0  # in which a successor answers


class Mover:
    """A process's part in flight-overs, and the forwarder whose sockets move.

    The server calls listen() before it starts, give() before it drains and close() behind that.
    """

    def __init__(self, config: InterfaceConfig, readiness: Readiness) -> None:
        self._run_dir = readiness.run_dir
        self._cannot = _cannot(config, self._run_dir)
        self._layer: RedisEventLayer
        self.forwarder: Forwarder = Forwarder(config, readiness, self._make_layer, self._cannot)
        self.forwarder.on_opened, self.forwarder.on_closed = self._opened, self._closed
        self._common = Common(self.forwarder, self._layer, readiness)
        self._givers: dict[str, Giver] = {}
        self._takers: list[Taker] = []
        self._listener: socket.socket | None = None

    def _make_layer(self, *given: Any, **hooks: Any) -> RedisEventLayer:
        self._end_process = hooks["on_fenced"]
        self._layer = RedisEventLayer(*given, **{**hooks, "on_fenced": self._fenced})
        return self._layer

    def listen(self, edge: Edge, config: Any, state: Any) -> None:
        """Have others hand their sockets over to this process. config, state: uvicorn's Config and ServerState."""
        if self._cannot or self._run_dir is None:
            return
        edge.adopt(config, state)
        self._common.edge = edge
        self._common.make_protocol = lambda: WebSocketProtocol(edge, state, config)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o177)
        try:
            listener.bind(str(handover_path(self._run_dir, os.getpid())))
            listener.listen()
        except OSError as error:
            logger.warning("no sockets can be handed over to this process: %s", error)
            listener.close()
            return
        finally:
            os.umask(umask)
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # who has asked is gone
            line, _ = listener.accept()
            self._takers.append(Taker(self._common, line, self._over))

    def close(self) -> None:
        """Take no more sockets."""
        if self._listener is not None and self._run_dir is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            handover_path(self._run_dir, os.getpid()).unlink(missing_ok=True)

    async def give(self) -> None:
        """Hand over all sockets to the process that was named, if one was; return once no more will be."""
        self.close()
        path = self._successor()
        if path is None or self._cannot:
            return
        async with asyncio.TaskGroup() as group:
            for identity in self._layer.identities[1:]:
                group.create_task(self._give(identity, path))
            for taker in self._takers:
                group.create_task(self._pass_on(taker, path))

    def _successor(self) -> Path | None:
        """Return where the process listens that was named this one's successor."""
        if self._run_dir is None:
            return None
        try:
            return handover_path(self._run_dir, int(successor_path(self._run_dir, os.getpid()).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("sockets are closed, not handed over: %s", error)
            return None

    async def _pass_on(self, taker: Taker, path: Path) -> None:
        """Hand over an identity that this process has from another, once it has all of it."""
        for _ in range(int(HANDOVER_SECONDS / LOOK_SECONDS)):
            if taker.is_settled:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if taker.is_settled and taker in self._takers:
            await self._give(taker.identity, path)

    async def _give(self, identity: str, path: Path) -> None:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(line, str(path))
        except OSError as error:  # TimeoutError is one
            logger.warning("sockets are closed, not handed over: their successor does not answer: %s", error)
            line.close()
            return
        giver = self._givers[identity] = Giver(self._common, identity, line)
        await giver.give()

    # What the forwarder and the layer tell.

    def _opened(self, connection: str) -> None:
        if giver := self._givers.get(interface_of(connection)):
            giver.opened(connection)

    def _closed(self, connection: str) -> None:
        identity = interface_of(connection)
        if giver := self._givers.get(identity):
            giver.closed(connection)
            return
        for taker in self._of(identity):
            taker.closed(connection)

    def _fenced(self, identity: str) -> None:
        takers = self._of(identity)
        if giver := self._givers.get(identity):
            giver.fenced()
        elif takers:
            takers[0].fenced()
        else:
            self._end_process(identity)

    def _of(self, identity: str) -> list[Taker]:
        return [each for each in self._takers if each.identity == identity]

    def _over(self, taker: Taker) -> None:
        if taker in self._takers:
            self._takers.remove(taker)


def _cannot(config: InterfaceConfig, run_dir: Path | None) -> str:
    """Say why sockets of this process cannot move; "" where they can, but for those of ASGI applications."""
    if config.server != "uvicorn":
        return config.server
    if run_dir is None:
        return "no run directory"
    if "ssl_certfile" in config.uvicorn:
        return "TLS ends here"
    return "permessage-deflate" if config.uvicorn.get("ws_per_message_deflate") else ""
