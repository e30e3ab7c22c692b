"""How a process closes its WebSockets once it drains: with 1012, at so many a second, after its listener.

A client comes back at once, over a fresh connection. So the first socket is closed a moment after the listener was
left: by then the others that drain have left it too, and the client finds one that stays.
"""

import asyncio
from collections import deque
from typing import Protocol

from asgictl.config import Limits
from asgictl.machine.pace import STEP_SECONDS, spread

SETTLE_SECONDS = 0.25  # for the other processes of an instance to leave the listener; a tenth of a drain at most
CLOSED_SHARE = 2 / 3  # of a drain, in which all sockets are closed; the rest is for their last turns


class Leaving(Protocol):
    """A WebSocket that is open."""

    def restart(self) -> None:
        """Close with 1012."""


def closed_seconds(limits: Limits) -> float:
    """Return how long it takes at most until all that is idle or a socket is closed."""
    return limits.drain_seconds * CLOSED_SHARE


async def close_sockets(leaving: deque[Leaving], limits: Limits) -> None:
    """Close sockets at the drain's rate, those too that are added meanwhile, until this is cancelled."""
    end = asyncio.get_running_loop().time() + closed_seconds(limits)
    await asyncio.sleep(min(SETTLE_SECONDS, limits.drain_seconds / 10))
    while True:
        await spread(leaving, lambda each: each.restart(), limits.drain_rate, end)
        await asyncio.sleep(STEP_SECONDS)
