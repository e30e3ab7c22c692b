"""Members of a group, of whom one speaks to all.

The last to join speaks, and says the next when it has heard itself, with a few messages on their way: so whoever is
told last paces what is said.
"""

import asyncio
import time
from collections.abc import Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

ON_THEIR_WAY = 4
HANDSHAKES = 20  # at a time: channels_redis has 100 connections in all
WARM_SECONDS = 1


class Member(WSListener):
    """Counts what all of them hear."""

    count = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        Member.count += frame.msg_type == WSMsgType.TEXT


class Speaker(Member):
    """Says the next when it hears the last."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, b"hello to all of you")


async def drive(url: str, members: int, seconds: float, sample: Callable[[], object]) -> tuple[float, int]:
    """Return deliveries a second, and how many came between two calls of `sample`.

    Raises RuntimeError when somebody was left out.
    """
    transports: list[WSTransport] = []
    while len(transports) < members - 1:
        batch = min(HANDSHAKES, members - 1 - len(transports))
        made = await asyncio.gather(*(ws_connect(Member, url) for _ in range(batch)))
        transports += [transport for transport, _ in made]
    speaker, _ = await ws_connect(Speaker, url)
    transports.append(speaker)
    await asyncio.sleep(WARM_SECONDS)  # for joins that are on their way
    for _ in range(ON_THEIR_WAY):
        speaker.send(WSMsgType.TEXT, b"hello to all of you")
    await asyncio.sleep(WARM_SECONDS)
    sample()
    began, Member.count = time.perf_counter(), 0
    await asyncio.sleep(seconds)
    rate, count = Member.count / (time.perf_counter() - began), Member.count
    sample()
    for transport in transports:
        transport.disconnect()
    if count < members:
        raise RuntimeError(f"{members} members heard {count} messages")
    return rate, count
