"""Asks Redis one thing from sync code, by redis-py."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import redis

from asgictl.errors import RedisError
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.keys import Keys
from asgictl.wire.manifest import Router, check_known

ANSWER_SECONDS = 5


def ask(url: str, question: Callable[[redis.Redis], Any]) -> Any:
    """Ask Redis something, once; raises RedisError."""
    try:
        return question(_client(url))
    except redis.RedisError as error:
        raise RedisError(f"this cannot be had of Redis: {error}") from None


def client_of(url: str, answer_seconds: float = ANSWER_SECONDS, retries: int = 0) -> redis.Redis:
    """Return a client of redis-py, as Endpoint.client() does; raises RedisError when `url` is none."""
    return endpoint(url).client(answer_seconds, retries)


_client = lru_cache(maxsize=4)(client_of)


def check_channel(url: str, keys: Keys, channel: str) -> None:
    """Raise UnknownChannel for one that the newest release has not; without a release nothing is known."""
    if manifest := ask(url, lambda client: client.get(keys.manifest)):
        check_known(channel, Router.decode(manifest).manifest.background)
