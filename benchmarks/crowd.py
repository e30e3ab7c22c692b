"""What rests: an instance without events, and many idle sockets, held for minutes or coming back at once."""

import argparse
import asyncio
import resource
import time
from collections.abc import Iterator

import uvloop
from picows import WSError, WSListener, WSTransport, ws_connect

from asgictl.interface.limits import SPARE_FILES
from asgictl.loadtests.servers import serving
from asgictl.loadtests.usage import Usage
from benchmarks.sides import split
from benchmarks.verdicts import Reading

CROWD, STORM = 30_000, 5_000
AT_ONCE = 200  # handshakes under way while a crowd gathers
STORM_SECONDS = 10.0
SETTLE_SECONDS, RESTING_SECONDS = 5, 30


class Idle(WSListener):
    """Answers pings, which picows does, and counts what closes."""

    closed = 0

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        Idle.closed += 1


async def gather(url: str, count: int, at_once: int) -> list[WSTransport]:
    """Open so many sockets, so many at once. Return those that opened."""
    turns, opened = asyncio.Semaphore(at_once), list[WSTransport]()

    async def connect() -> None:
        async with turns:
            try:
                opened.append((await ws_connect(Idle, url, websocket_handshake_timeout=60))[0])
            except (OSError, WSError, TimeoutError):
                return

    await asyncio.gather(*(connect() for _ in range(count)))
    return opened


async def hold(url: str, count: int, seconds: float) -> tuple[int, int]:
    """Open sockets and hold them. Return how many opened, and how many of them closed meanwhile."""
    Idle.closed = 0
    opened = await gather(url, count, AT_ONCE)
    await asyncio.sleep(seconds)
    closed = Idle.closed
    for transport in opened:
        transport.disconnect()
    return len(opened), closed


async def come_back(url: str, count: int) -> tuple[int, float]:
    """Open sockets, cut all, and open all again at once. Return how many opened again, and after how many seconds."""
    for transport in await gather(url, count, AT_ONCE):
        transport.disconnect()
    began = time.perf_counter()
    opened = await gather(url, count, count)
    seconds = time.perf_counter() - began
    for transport in opened:
        transport.disconnect()
    return len(opened), seconds


def crowd(arguments: argparse.Namespace) -> Iterator[Reading]:
    count = min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2 * SPARE_FILES)
    with serving(split("echo", "ws:/ws")) as server:
        opened, closed = uvloop.run(hold(server.url.replace("http", "ws") + "/ws", count, arguments.crowd))
    yield Reading("crowd: not opened", count - opened, 0, "", f"of {count}")
    yield Reading("crowd: closed", closed, 0, "", f"in {arguments.crowd:.0f} s")


def resting(_arguments: argparse.Namespace) -> Iterator[Reading]:
    """Measure what an instance of two workers uses while nothing happens."""
    with serving(split("wsgi", workers=2)) as server:
        usage = Usage(server.runtime, "controller")
        time.sleep(SETTLE_SECONDS)
        usage.sample()
        time.sleep(RESTING_SECONDS)
        usage.sample()
    used = {role: 100 * seconds / RESTING_SECONDS for role, seconds in usage.cpu(0, time.time()).items()}
    note = " · ".join(f"{role} {share:.2f}" for role, share in sorted(used.items()))
    yield Reading("resting", sum(used.values()), 1.0, "%", note)


def storm(_arguments: argparse.Namespace) -> Iterator[Reading]:
    with serving(split("echo", "ws:/ws")) as server:
        opened, seconds = uvloop.run(come_back(server.url.replace("http", "ws") + "/ws", STORM))
    yield Reading("storm: not open again", STORM - opened, 0, "", f"of {STORM}")
    yield Reading("storm", seconds, STORM_SECONDS, "s", "until all were open")
