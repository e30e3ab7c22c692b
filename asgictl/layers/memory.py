"""The channel layer of a single process: nothing lies between."""

import asyncio
from itertools import count

from asgictl.layers.base import OnBroadcast
from asgictl.messages import Broadcast


class MemoryGroupLayer:
    """Groups whose members all live on this event loop."""

    def __init__(self, on_broadcast: OnBroadcast) -> None:
        self._on_broadcast = on_broadcast
        self._sequence = count(1)

    async def start(self) -> None:
        """Nothing is to be opened."""

    async def stop(self) -> None:
        """Nothing is to be closed."""

    def publish(self, broadcast: Broadcast) -> None:
        """Give the frame to every member, after the caller has gone on."""
        asyncio.get_running_loop().call_soon(self._on_broadcast, broadcast, (0, next(self._sequence)))
