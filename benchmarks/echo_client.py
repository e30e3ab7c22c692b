"""WebSocket clients that each send a message, wait for its echo, send the next: python -m benchmarks.echo_client."""

import asyncio
import sys
import time

import uvloop
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


async def drive(url: str, clients: int, seconds: float) -> float:
    """Return echoes a second."""
    transports = [(await ws_connect(Client, url))[0] for _ in range(clients)]
    began, Client.count = time.perf_counter(), 0
    await asyncio.sleep(seconds)
    rate = Client.count / (time.perf_counter() - began)
    for transport in transports:
        transport.disconnect()
    return rate


if __name__ == "__main__":
    print(uvloop.run(drive(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
