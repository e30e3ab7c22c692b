"""Asks Redis one thing from sync code, by redis-py; and whether a Redis can carry events."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asgictl.errors import RedisError
from asgictl.layers.redis.keys import Keys
from asgictl.machine import forks
from asgictl.wire.manifest import Router, check_known

MINIMUM_VERSION = (6, 2)
ANSWER_SECONDS = 5


def check_redis(url: str) -> None:
    """Raise RedisError, saying what to do, unless the Redis at `url` can carry events."""
    shown = re.sub(r"^\w+://(.*@)?|\?.*", "", url)  # never a password
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    except ValueError:  # its text may quote a part of the password
        raise RedisError(
            "--redis is not a URL of Redis, such as redis://host:6379; percent-encode what a password has of / ? # @ :"
        ) from None
    try:
        info = client.info()
    except redis.AuthenticationError:
        raise RedisError(
            f"Redis at {shown} wants a password, or another one; use --redis redis://:PASSWORD@host:port"
        ) from None
    except redis.RedisError as error:
        raise RedisError(f"Redis at {shown} cannot be used: {error}; is it running, is --redis right?") from None
    finally:
        client.close()
    assert isinstance(info, dict)  # noqa: S101 - redis-py types sync and async replies alike
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < MINIMUM_VERSION:
        raise RedisError(f"Redis at {shown} is {info['redis_version']}; 6.2 is the oldest that works")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisError(f"Redis at {shown} may evict events: set its maxmemory-policy to noeviction, not {policy}")


def ask(url: str, question: Callable[[redis.Redis], Any]) -> Any:
    """Ask Redis something, once; raises RedisError."""
    try:
        return question(_client(url))
    except ValueError:  # its text may quote a part of the password
        raise RedisError("--redis is not a URL of Redis, such as redis://host:6379") from None
    except redis.RedisError as error:
        raise RedisError(f"this cannot be had of Redis: {error}") from None


def client_of(url: str, answer_seconds: float = ANSWER_SECONDS, retries: int = 0) -> redis.Redis:
    """Return a client of redis-py, which is kept from children. retries: each may send twice what was sent already."""
    retry = Retry(NoBackoff(), retries)
    return redis.Redis.from_url(
        url, socket_timeout=answer_seconds, retry=retry, redis_connect_func=forks.hold_connection
    )


_client = lru_cache(maxsize=4)(client_of)


def check_channel(url: str, keys: Keys, channel: str) -> None:
    """Raise UnknownChannel for one that the newest release has not; without a release nothing is known."""
    if manifest := ask(url, lambda client: client.get(keys.manifest)):
        check_known(channel, Router.decode(manifest).manifest.background)
