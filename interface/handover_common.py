"""What both ends of hand-overs have in one process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import hiredis

from asgictl.interface.edge import Edge
from asgictl.interface.edge_websocket import WebSocketProtocol
from asgictl.interface.forwarder import Forwarder
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.telemetry.controller_client import Readiness

logger = logging.getLogger("asgictl.handover")
AGAIN_SECONDS = 0.2  # until what Redis could not do is tried again


class Common:
    """This process's forwarder, layer and claims, and what runs beside. edge, make_protocol: once it listens."""

    edge: Edge
    make_protocol: Callable[[], WebSocketProtocol]

    def __init__(self, forwarder: Forwarder, layer: RedisEventLayer, readiness: Readiness) -> None:
        self.forwarder: Forwarder = forwarder
        self.layer: RedisEventLayer = layer
        self._readiness = readiness
        self._claimed = [*layer.identities]
        self._tasks: set[asyncio.Task[None]] = set()

    def claim(self, identity: str, *, claims: bool) -> None:
        """Tell the controller whether this process's death is the identity's."""
        if claims == (identity in self._claimed):
            return
        (self._claimed.append if claims else self._claimed.remove)(identity)
        self._readiness.amend(ids=self._claimed)

    def reap(self, identity: str, held: Callable[[], Iterable[str]], then: Callable[[], None]) -> None:
        """Run the last wills of an identity's connections that are not held; then() once all have run."""

        async def reap() -> None:
            while await self.again(lambda: self.layer.reap_others(identity, [*held()])):  # noqa: ASYNC110
                await asyncio.sleep(AGAIN_SECONDS)
            then()

        self.run(reap())

    async def again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask Redis until it answers."""
        while True:
            try:
                return await ask()
            except (OSError, hiredis.ReplyError) as error:
                logger.warning("Redis does not answer a hand-over yet: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)

    def run(self, doing: Coroutine[Any, Any, None]) -> None:
        """Run it beside all else."""
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a hand-over failed", exc_info=error)
