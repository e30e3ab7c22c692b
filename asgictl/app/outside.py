"""Sends from outside of any event: from a script, a shell, `asgictl send`."""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asgictl.config import CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, NotRunning, RedisError
from asgictl.layers.redis.commands import send_command
from asgictl.layers.redis.keys import Keys
from asgictl.machine import forks
from asgictl.wire.manifest import Router, check_known
from asgictl.wire.messages import Job, Sent

ANSWER_SECONDS = 5
NOWHERE = "outside of a consumer or view send() needs to know where to: set ASGICTL_REDIS to the URL of Redis, or {}"


class Sender:
    """To one instance, from any thread. Every method raises RedisError when its Redis cannot be used."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._url = redis_url
        self._keys = Keys(name)

    @classmethod
    def of_environment(cls) -> "Sender":
        """To the instance ASGICTL_NAME, in the Redis of ASGICTL_REDIS or, on this machine, in its own.

        Raises RunDirectoryError for an instance whose run directory is not ours alone.
        """
        from asgictl.control.instance import Instance

        name = os.environ.get("ASGICTL_NAME", "default")
        try:
            return cls(os.environ.get("ASGICTL_REDIS") or Instance(name).redis_url(), name)
        except (NotRunning, RedisError) as error:
            raise RedisError(NOWHERE.format(f"ASGICTL_NAME to an instance with one of its own ({error})")) from None

    def send(self, sent: Sent) -> None:
        """Send now. Raises UnknownChannel when a worker that was ready had no such channel, and ChannelFull.

        After a RedisError that speaks of a timeout or a lost connection, it may have been sent.
        """
        if isinstance(sent, Job):
            self.check(sent.name)
        if (
            ask(self._url, lambda client: client.execute_command(*send_command(self._keys, sent, CHANNEL_CAPACITY)))
            == 0
        ):
            raise ChannelFull(getattr(sent, "name", ""), CHANNEL_CAPACITY)

    def check(self, channel: str) -> None:
        """Raise UnknownChannel for one that the newest release has not; without a release nothing is known."""
        if manifest := ask(self._url, lambda client: client.get(self._keys.manifest)):
            check_known(channel, Router.decode(manifest).manifest.background)


def ask(url: str, question: Callable[[redis.Redis], Any]) -> Any:
    """Ask Redis something, once; raises RedisError."""
    try:
        return question(_client(url))
    except ValueError:  # its text may quote a part of the password
        raise RedisError("--redis is not a URL of Redis, such as redis://host:6379") from None
    except redis.RedisError as error:
        raise RedisError(f"this cannot be had of Redis: {error}") from None


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    # redis-py's own retries would send twice what was sent already.
    return redis.Redis.from_url(
        url, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0), redis_connect_func=forks.hold_connection
    )
