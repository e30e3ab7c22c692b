"""The worker's other thread, which runs whatever the application does meanwhile.

It renews the worker's lease, looks how full background channels are, ends reads that wait, releases what a slow
handler keeps waiting, ends the worker when a handler takes longer than it may, and asks it to end when it has served or
grown enough.
"""

import logging
import os
import random
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import redis

from asgictl.app.outcome import Depths
from asgictl.app.runtime import failures
from asgictl.config import WorkerConfig
from asgictl.errors import FENCED_STATUS, TIMEOUT_STATUS
from asgictl.layers.base import Entry, Reject, ignored
from asgictl.layers.redis import own_channels
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import BEAT_SECONDS, beat, member, reap, release_command
from asgictl.layers.redis.process_records import record_command
from asgictl.layers.redis.send_commands import weigh_command
from asgictl.layers.redis.worker_side import COMMIT, commit_arguments
from asgictl.wire.error_responses import APPLICATION_TOO_SLOW
from asgictl.wire.messages import BACKGROUND, encode
from asgictl.worker.loop import Loop

logger = logging.getLogger("asgictl.worker")
BEAT_AGAIN_SECONDS = 0.2  # after one that was refused: a cluster whose slot migrates takes some
STOP_SECONDS = 30.0  # that a handler has to end once its worker is to stop
WATCH_SECONDS = 0.02  # a handler that takes longer keeps nobody waiting
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of getrusage(2)'s ru_maxrss


class Watchdog:
    """Beat once, then start `thread`; finish() once the loops have ended."""

    def __init__(
        self,
        config: WorkerConfig,
        identity: str,
        loops: Sequence[Loop],
        stopping: threading.Event,
        manifest: bytes = b"",
        *,
        channels: Sequence[str] = (),
        own: Sequence[str] = (),
        record: Callable[[], bytes] = bytes,
        reject: Reject = ignored,
    ) -> None:
        self._config = config
        self._identity = identity
        self._keys = Keys(config.name)
        self._loops = loops
        self._stopping = stopping
        self._manifest = manifest
        self._channels = channels
        self._own = own  # channels of this worker alone, until it stops
        self._record = record  # of this process, each second anew
        self._reject = reject
        self._has_finished = False
        self._awake = threading.Event()
        for loop in loops:
            loop.awake = self._awake
        self._epoch = b""
        self._answered_at = time.monotonic()
        # Not all workers of an instance are to end at once.
        self._max_events = config.max_events * random.uniform(0.9, 1.1)  # noqa: S311
        # redis-py's own retries last longer than a lease.
        self._client = endpoint(config.redis_url).client(1, retries=1)
        # A daemon: a main thread that fails must not leave a process behind that beats and does nothing else.
        self.thread: threading.Thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def beat(self) -> bool:
        """Renew the lease; False where Redis refused it, so that it is worth trying again soon.

        Fenced: others have our work, so let go of what is in flight, and end at once.
        """
        try:
            answer = beat(
                *(self._client, self._keys, "worker", self._identity, self._epoch),
                channels=(*self._channels, *self._own),
                manifest=self._manifest,
                record=self._record(),
                reject=self._reject,
            )
            self._epoch = answer.epoch
            if answer.fenced:
                logger.error("fenced: the lease of this worker expired; it drops its events and ends")
                reap(self._client, self._keys, member("worker", self._identity), seen=True)
                os._exit(FENCED_STATUS)
            self._answered_at = time.monotonic()
            self._measure()
            for loop in self._loops:  # Redis answers: whatever keeps silent has lost its connection
                loop.layer.end_silence()
        except redis.RedisError as error:
            logger.warning("could not send a heartbeat: %s", error)
            return not isinstance(error, redis.ResponseError)
        return True

    @property
    def redis_silent_seconds(self) -> float:
        """How long ago Redis last answered a beat, which it does each second."""
        return time.monotonic() - self._answered_at

    def _measure(self) -> None:
        """See how many messages wait in each background channel, and how large, for those who send to it."""
        depths = self._loops[0].application.depths if self._loops else Depths(())
        with self._client.pipeline(transaction=False) as pipe:
            for channel in (BACKGROUND + name for name in depths):
                pipe.xlen(self._keys.channel(channel))
                pipe.zcard(self._keys.delayed(channel))
                pipe.execute_command(*weigh_command(self._keys, channel))
            counts = [count if isinstance(count, int) else 0 for count in pipe.execute(raise_on_error=False)]
        for name, ready, delayed, size in zip(depths, counts[::3], counts[1::3], counts[2::3], strict=True):
            depths[name], depths.bytes[name] = ready + delayed, size

    def finish(self) -> None:
        """The loops have ended: end the lease, and release what a lost connection may have left pending."""
        self._has_finished = True
        self._awake.set()
        self.thread.join()
        try:
            reap(self._client, self._keys, member("worker", self._identity), seen=True)
            self._client.execute_command(*record_command(self._keys, self._identity, b""))
        except redis.RedisError as error:
            logger.warning("could not deregister from Redis: %s", error)
        self._client.close()

    def _serve(self) -> None:
        try:
            self._watch_and_beat()
        finally:
            self.stop()  # a worker that nobody watches ends

    def stop(self) -> None:
        """Have the loops stop. From any thread."""
        self._stopping.set()
        self._awake.set()

    def _watch_and_beat(self) -> None:
        beaten, stopping_at = time.monotonic(), 0.0
        while not self._has_finished:
            self._rest(beaten + BEAT_SECONDS - time.monotonic())
            self._watch()
            if self._stopping.is_set():
                self._close_own()
                self._unblock()
                stopping_at = stopping_at or time.monotonic()
                self._insist(time.monotonic() - stopping_at)
            if time.monotonic() - beaten >= BEAT_SECONDS:
                beaten = time.monotonic()
                if not self.beat():
                    beaten -= BEAT_SECONDS - BEAT_AGAIN_SECONDS
                self._recycle()

    def _rest(self, idle_seconds: float) -> None:
        """Wait for the next look: idle_seconds where all loops wait, and nothing has begun since the last one."""
        has_begun = self._awake.is_set()
        self._awake.clear()  # before the loops are looked at: what begins behind that sets it
        if has_begun or self._stopping.is_set() or not all(loop.is_reading for loop in self._loops):
            time.sleep(WATCH_SECONDS)
        else:
            self._awake.wait(idle_seconds)

    def _watch(self) -> None:
        """Look at how long each thread's handler has been running."""
        now = time.perf_counter()
        for loop in self._loops:
            if (entry := loop.running) is None:
                continue
            if now - loop.began > WATCH_SECONDS:
                loop.layer.flush()  # the commits of the fast handlers before it
                self._give_back(loop)
            if 0 < self._config.timeout_seconds < now - loop.since:
                self._end(loop, entry)

    def _give_back(self, *loops: Loop) -> None:
        for loop in loops:
            held = loop.take_prefetched()
            try:
                if held:
                    self._client.execute_command(*release_command(self._keys, held))
            except redis.RedisError as error:  # whether it was done is not known; to do it twice is harmless
                logger.warning("could not release %d prefetched events yet: %s", len(held), error)
                loop.unreleased.extend(held)

    def _end(self, loop: Loop, culprit: Entry) -> None:
        """A handler cannot be ended but with its process: answer for the culprit, release what waits, and end.

        What other threads run counts as started and lost, when this process is found dead.
        """
        reason = f"its handler took longer than {self._config.timeout_seconds:g} s"
        stack = "".join(traceback.format_stack(sys._current_frames().get(loop.thread)))
        failures.error("%s: %s; the event is dead-lettered, and this worker ends\n%s", culprit, reason, stack)
        channel, payload = culprit.stream.decode().partition("}:ch:")[2], encode(culprit.event)[1]
        arguments = commit_arguments(self._keys, culprit, loop.failure(culprit, 504, APPLICATION_TOO_SLOW), [])
        try:
            self._client.execute_command(*dead_letter_command(self._keys, channel, payload, reason))
            self._client.execute_command("EVAL", COMMIT, *arguments)
        except redis.RedisError as error:
            logger.warning("could not end the event that took longer than --timeout: %s", error)
        self._give_back(*self._loops)
        logging.shutdown()
        os._exit(TIMEOUT_STATUS)

    def _close_own(self) -> None:
        """Take no new events of our own: they go to other workers at once."""
        try:
            own_channels.close(self._client, self._keys, self._own, f"{self._identity}.own")
            self._own = ()
        except redis.RedisError:  # again in a moment
            pass

    def _unblock(self) -> None:
        try:
            for loop in self._loops:
                self._client.client_unblock(loop.layer.client_id)
        except redis.RedisError as error:
            logger.warning("could not unblock reads; they end at their deadline: %s", error)

    def _insist(self, seconds: float) -> None:
        """End a handler that keeps its worker from stopping; what it ran counts as lost."""
        if seconds > STOP_SECONDS and any(loop.running for loop in self._loops):
            names = ", ".join(str(loop.running) for loop in self._loops if loop.running)
            logger.error("killed: %s did not end within %.0f s of this worker's SIGTERM", names, STOP_SECONDS)
            logging.shutdown()
            os._exit(TIMEOUT_STATUS)

    def _recycle(self) -> None:
        """A worker that has done or grown enough drains and ends; its supervisor starts another."""
        events = sum(loop.events for loop in self._loops)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
        if 0 < self._max_events <= events:
            logger.info("served %d events (--max-events): this worker ends and is replaced", events)
        elif 0 < self._config.max_memory_bytes <= peak_bytes:
            last = max(self._loops, key=lambda loop: loop.began).last
            logger.warning(
                "grew to %d MiB (--max-memory-mib), last with %s: this worker ends and is replaced",
                peak_bytes >> 20,
                last or "nothing",
            )
        else:
            return
        self._stopping.set()
