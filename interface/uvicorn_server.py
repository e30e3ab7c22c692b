"""uvicorn's server, which looks once a second whether it is to end, and when it is told to, not ten times a second."""

import asyncio
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Protocol

import uvicorn
from uvicorn.server import ServerState

from asgictl.interface.edge import Edge
from asgictl.machine.ticks import until_tick

TICK_SECONDS = 1.0  # the default headers have a Date
FORCED_SECONDS = 0.1  # between two looks whether it is to end at once


class Server(uvicorn.Server):
    """handle_exit() ends it, from a signal's handler too."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Serve until it is told to end."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(until_tick(TICK_SECONDS)):
                    await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Have it end."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)


class Moves(Protocol):
    """Hands sockets over to another process (mover.Mover)."""

    def listen(self, edge: Edge, config: uvicorn.Config, state: ServerState) -> None: ...

    async def give(self) -> None: ...

    def close(self) -> None: ...


class EdgeServer(Server):
    """The server of an edge: serves on for --shutdown-delay after SIGTERM, hands its sockets over, then drains.

    config: of an Edge. moves: None where no sockets can be handed over.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge, moves: Moves | None = None) -> None:
        super().__init__(config)
        self._edge = edge
        self._moves = moves
        self._delay_seconds = edge.limits.shutdown_delay_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Have it end: SIGTERM after the delay, a second one and SIGINT at once."""
        self._edge.backend.figures.draining = 1
        seconds, self._delay_seconds = self._delay_seconds, 0.0
        if seconds and sig == signal.SIGTERM and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Be ready for what other processes hand over, then start."""
        if self._moves:
            self._moves.listen(self._edge, self.config, self.server_state)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave the listener, then serve what was accepted to its end, and close WebSockets meanwhile."""
        if self._moves:
            await self._hand_over(self._moves)
        closing = self._edge.drain()
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()

    async def _hand_over(self, moves: Moves) -> None:
        """Leave the listener, and hand sockets over, unless this is to end at once."""
        for server in self.servers:
            server.close()
        giving = asyncio.create_task(moves.give())
        while not (giving.done() or self.force_exit):
            await asyncio.wait([giving], timeout=FORCED_SECONDS)
        giving.cancel()
        with suppress(asyncio.CancelledError):
            await giving
        moves.close()
