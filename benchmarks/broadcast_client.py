"""Members of a group, of whom one speaks to all.

The last to join speaks, and says the next when it has heard itself, with a few messages on their way: so whoever is
told last paces what is said.
"""

import asyncio
from collections.abc import Callable

from picows import WSFrame, WSMsgType, WSTransport, ws_connect

from benchmarks.echo_client import Counting, count

ON_THEIR_WAY = 4
HANDSHAKES = 20  # at a time: channels_redis has 100 connections in all
WARM_SECONDS = 1


class Speaker(Counting):
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
        made = await asyncio.gather(*(ws_connect(Counting, url) for _ in range(batch)))
        transports += [transport for transport, _ in made]
    speaker, _ = await ws_connect(Speaker, url)
    transports.append(speaker)
    await asyncio.sleep(WARM_SECONDS)  # for joins that are on their way
    for _ in range(ON_THEIR_WAY):
        speaker.send(WSMsgType.TEXT, b"hello to all of you")
    await asyncio.sleep(WARM_SECONDS)
    rate, heard = await count(transports, seconds, sample)
    if heard < members:
        raise RuntimeError(f"{members} members heard {heard} messages")
    return rate, heard
