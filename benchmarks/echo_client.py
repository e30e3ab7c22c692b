"""WebSocket clients that each send a message, wait for its echo, send the next."""

import asyncio
import time
from collections.abc import Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class Counting(WSListener):
    """Counts what all clients of a process hear."""

    count = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        Counting.count += frame.msg_type == WSMsgType.TEXT


class Client(Counting):
    """Sends the next when it hears the last."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"hello there")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, b"hello there")


async def count(transports: list[WSTransport], seconds: float, sample: Callable[[], object]) -> tuple[float, int]:
    """Return what clients hear in a second, and in all between two calls of `sample`; they are disconnected then."""
    sample()
    began, Counting.count = time.perf_counter(), 0
    await asyncio.sleep(seconds)
    rate, heard = Counting.count / (time.perf_counter() - began), Counting.count
    sample()
    for transport in transports:
        transport.disconnect()
    return rate, heard


async def drive(url: str, clients: int, seconds: float, sample: Callable[[], object]) -> tuple[float, int]:
    """Return echoes a second, and how many came between two calls of `sample`."""
    return await count([(await ws_connect(Client, url))[0] for _ in range(clients)], seconds, sample)
