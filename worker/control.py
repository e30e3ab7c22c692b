"""The worker's other thread: renews its lease whatever the application does meanwhile, and ends reads that wait."""

import logging
import os
import threading
import time

import redis

from asgictl.configuration import WorkerConfig
from asgictl.layers.keys import Keys
from asgictl.layers.leases import beat, leave_command, member, reap
from asgictl.layers.redis_worker import RedisWorkerLayer

logger = logging.getLogger("asgictl.worker")
BEAT_SECONDS = 1.0
UNBLOCK_SECONDS = 0.05  # between attempts to end a read that waits
FENCED_STATUS = 70  # sysexits.h, EX_SOFTWARE


class Control:
    """Beat once, then start `thread`; finish() once the loops have ended."""

    def __init__(
        self, config: WorkerConfig, identity: str, layers: list[RedisWorkerLayer], stopping: threading.Event
    ) -> None:
        self._identity = identity
        self._keys = Keys(config.name)
        self._layers = layers
        self._stopping = stopping
        self._finished = threading.Event()
        self._epoch = b""
        self._client = redis.Redis.from_url(config.redis_url, socket_timeout=1, socket_connect_timeout=1)
        self.thread = threading.Thread(target=self._serve, name="control")

    def beat(self) -> None:
        """Renew the lease. Fenced: others have our work, so let go of what is in hand, and end at once."""
        try:
            answer = beat(self._client, self._keys, "worker", self._identity, self._epoch)
            self._epoch = answer.epoch
            if answer.fenced:
                logger.error("fenced: this worker was taken for dead; it drops what it has in hand and ends")
                reap(self._client, self._keys, member("worker", self._identity), seen=True)
                os._exit(FENCED_STATUS)
        except redis.RedisError as error:
            logger.warning("no beat: %s", error)

    def finish(self) -> None:
        """The loops have ended: end the lease."""
        self._finished.set()
        self.thread.join()
        try:
            self._client.execute_command(*leave_command(self._keys, "worker", self._identity))
        except redis.RedisError as error:
            logger.warning("left Redis without a goodbye: %s", error)
        self._client.close()

    def _serve(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            self.beat()
        beaten = time.monotonic()
        while not self._finished.wait(UNBLOCK_SECONDS):
            try:
                for layer in self._layers:
                    self._client.client_unblock(layer.client_id)
            except redis.RedisError as error:
                logger.warning("reads end by themselves: %s", error)
            if time.monotonic() - beaten > BEAT_SECONDS:
                self.beat()
                beaten = time.monotonic()
