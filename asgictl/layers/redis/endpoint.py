"""Every connection to Redis: to a node, or to the master that Sentinels name."""

import asyncio
import os
import re
from functools import lru_cache
from typing import Any

import redis
from redis.asyncio import connection as asynchronous
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from asgictl.errors import RedisError
from asgictl.layers.redis.sentinels import ANSWER_SECONDS, Sentinels
from asgictl.layers.redis.url import parse_url
from asgictl.machine import forks

CONNECT_SECONDS = 5.0  # that a connection has to be made and set up
QUESTION_SECONDS = 5.0  # that Redis has to answer sync code
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_ASYNCHRONOUS: dict[type, type[asynchronous.AbstractConnection]] = {
    redis.Connection: asynchronous.Connection,
    redis.SSLConnection: asynchronous.SSLConnection,
    redis.UnixDomainSocketConnection: asynchronous.UnixDomainSocketConnection,
}


@lru_cache(maxsize=16)
def endpoint(url: str) -> "Endpoint":
    """Return what a URL says, the same for each URL; raises RedisError when it is none."""
    return Endpoint(url)


class Endpoint:
    """One node, or the master that Sentinels name. shown: the URL without what is secret. user: of Redis."""

    def __init__(self, url: str) -> None:
        place = parse_url(url)
        self._options = _options(place.node)
        self._kind: type[redis.connection.AbstractConnection] = self._options.pop("connection_class", redis.Connection)
        self.user: str = self._options.get("username", "default")
        self.shown: str = re.sub(r"^[^:]+://(.*@)?|\?.*", "", url)
        self._sentinels = None
        if place.sentinels:
            self._sentinels = Sentinels(place.service, [_sentinel(each) for each in place.sentinels])

    def client(self, answer_seconds: float = QUESTION_SECONDS, retries: int = 0) -> redis.Redis:
        """Return a client of redis-py, which is kept from children.

        answer_seconds: that Redis has to take a connection, and to answer. retries: each may send twice what was sent.
        """
        options = {
            "socket_timeout": answer_seconds,
            "socket_connect_timeout": answer_seconds,
            "retry": Retry(NoBackoff(), retries),
            "redis_connect_func": self._greet,
            **self._options,
        }
        if self._sentinels:
            options["ssl"] = self._kind is redis.SSLConnection
            pool: redis.ConnectionPool = SentinelConnectionPool(self._sentinels.service, self._sentinels, **options)
        else:
            pool = redis.ConnectionPool(self._kind, **options)
        return redis.Redis.from_pool(pool)

    def connect(self) -> redis.connection.AbstractConnection:
        """Return a connection that is greeted; raises redis-py's errors."""
        place = self._sentinels.ask().result()._asdict() if self._sentinels else {}
        bound = {"socket_connect_timeout": CONNECT_SECONDS}  # unless the URL has another
        ours = {"protocol": 2, "redis_connect_func": self._greet}
        connection = self._kind(**{**bound, **self._options, **place, **ours})
        connection.connect()
        return connection

    async def connect_async(self) -> asynchronous.AbstractConnection:
        """Return an asynchronous connection that is greeted; raises redis-py's errors."""
        place = (await asyncio.wrap_future(self._sentinels.ask()))._asdict() if self._sentinels else {}
        connection = _ASYNCHRONOUS[self._kind](**{**self._options, **place, "protocol": 2})
        if self._sentinels:
            self._sentinels.hold(connection, asyncio.get_running_loop())
        await connection.connect()
        return connection

    def _greet(self, connection: Any) -> None:
        if self._sentinels:
            self._sentinels.hold(connection)
        forks.hold_connection(connection)


def _sentinel(url: str) -> redis.Redis:
    deadlines = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    ours = {**deadlines, "redis_connect_func": forks.hold_connection, "decode_responses": True}
    return redis.Redis.from_pool(redis.ConnectionPool(**{**_options(url), **ours}))


def _options(url: str) -> dict[str, Any]:
    """Return what redis-py makes of a node's URL; raises RedisError for a file that cannot be read."""
    found: dict[str, Any] = redis.connection.parse_url(url)
    for name in FILES:
        if name in found and not os.access(found[name], os.R_OK):
            raise RedisError(f"--redis: {name} is {found[name]}, which cannot be read")
    return found
