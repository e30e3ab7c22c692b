"""Asks Redis one thing from sync code, by redis-py."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import redis

from asgictl.errors import RedisError
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.keys import Keys
from asgictl.wire.manifest import Router, check_known


def ask(url: str, question: Callable[[redis.Redis], Any]) -> Any:
    """Ask Redis something, once; raises RedisError."""
    try:
        return question(_client(url))
    except redis.RedisError as error:
        raise RedisError(f"a request to Redis failed: {error}") from None


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    return endpoint(url).client()


def check_channel(url: str, keys: Keys, channel: str) -> None:
    """Raise UnknownChannel for one that the newest release has not; without a release nothing is known."""
    if manifest := ask(url, lambda client: client.get(keys.manifest)):
        check_known(channel, Router.decode(manifest).manifest.background)
