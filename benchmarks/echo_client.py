"""WebSocket clients that each send a message, wait for its echo, send the next."""

import asyncio
import time
from collections.abc import Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect


class Client(WSListener):
    """Counts the echoes that came back."""

    count = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"hello there")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            Client.count += 1
            transport.send(WSMsgType.TEXT, b"hello there")


async def drive(url: str, clients: int, seconds: float, sample: Callable[[], object]) -> tuple[float, int]:
    """Return echoes a second, and how many came between two calls of `sample`."""
    transports = [(await ws_connect(Client, url))[0] for _ in range(clients)]
    sample()
    began, Client.count = time.perf_counter(), 0
    await asyncio.sleep(seconds)
    rate, count = Client.count / (time.perf_counter() - began), Client.count
    sample()
    for transport in transports:
        transport.disconnect()
    return rate, count
