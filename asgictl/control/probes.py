"""Probes of one process, a role that runs alone: the admin endpoint without a controller, in a thread."""

import asyncio
import os
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from asgictl.config import Bind
from asgictl.control import channel_depths
from asgictl.control.admin import Hosted
from asgictl.control.registry import History
from asgictl.errors import RedisError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.sync_client import ask
from asgictl.telemetry.controller_client import Readiness

LOCAL = "127.0.0.1"


class Probed:
    """One process, as its probes know it (admin.Known). lease_seconds: of silence of Redis, after which it has none."""

    def __init__(self, readiness: Readiness, lease_seconds: float, redis_url: str, name: str) -> None:
        self._readiness = readiness
        self._lease_seconds = lease_seconds
        self._redis_url = redis_url
        self._keys = Keys(name)
        self.channels: dict[str, channel_depths.Channel] = {}

    @property
    def history(self) -> History:
        """What it has counted up to now."""
        history = History()
        history.add(os.getpid(), self._readiness.counted())
        return history

    def who(self) -> dict[int, dict[str, Any]]:
        """Return what it reports of itself, by pid."""
        return {os.getpid(): self._readiness.report}

    def unready(self) -> str:
        """Say why nothing should be sent here; "" when there is no reason."""
        figures = self._readiness.counted()
        reasons = {
            "it is starting": self._readiness.report["state"] != "ready",
            "it is shutting down": figures.draining,
            "Redis has been silent for longer than the lease": figures.redis_silent_seconds > self._lease_seconds,
            "it has reached its open file limit": figures.full,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds)

    def moves(self) -> dict[str, dict[str, int]]:
        """Return nothing: sockets move where there is a run directory."""
        return {}

    def late(self) -> dict[str, str]:
        """Return nothing: other processes serve its channels too."""
        return {}

    async def query_depths(self) -> None:
        """See how full the channels are, of all processes: Prometheus may ask any of them."""
        self.channels = {}
        with suppress(RedisError):
            look = partial(channel_depths.look, keys=self._keys)
            self.channels = await asyncio.to_thread(ask, self._redis_url, look)

    async def status(self) -> dict[str, Any]:
        """Return nothing: `asgictl status --redis` knows all processes."""
        return {}


def address(text: str) -> Bind:
    """Return where probes listen: [HOST:]PORT, without a host for this machine alone. Raises AddressError."""
    return Bind(text if ":" in text else f"{LOCAL}:{text}", "--probe-port")


def serve_probes(bind: Bind, readiness: Readiness, lease_seconds: float, redis_url: str, name: str) -> None:
    """Serve /livez, /readyz and /metrics from a thread, for as long as the process lives. Raises AddressError."""
    probed = Probed(readiness, lease_seconds, redis_url, name)
    hosted = Hosted(probed, [bind.listen()], is_local=bind.is_local)
    threading.Thread(target=lambda: asyncio.run(hosted.host()), name="probes", daemon=True).start()
