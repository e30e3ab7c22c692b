import threading
import time

import pytest
import redis

from benchmarks.proxy import Proxy

QUIET_SECONDS = 0.2


def connected(proxy: Proxy) -> "redis.Redis":
    client = redis.Redis.from_url(proxy.url, socket_timeout=60, single_connection_client=True)
    client.ping()
    return client


def test_a_frozen_connection_says_nothing_and_stays_open_while_new_ones_are_served(url_of_valkey: str) -> None:
    with Proxy(url_of_valkey) as proxy:
        client = connected(proxy)
        assert proxy.freeze() == 1
        assert client.connection
        client.connection.update_current_socket_timeout(QUIET_SECONDS)
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.execute_command("PING")
        assert time.monotonic() - began > QUIET_SECONDS
        connected(proxy)
        assert proxy.freeze(without=b"PING") == 0


def test_what_was_sent_to_a_stalled_redis_is_answered_once_it_goes_on(url_of_valkey: str) -> None:
    with Proxy(url_of_valkey) as proxy:
        client = connected(proxy)
        proxy.stall()
        going = threading.Timer(QUIET_SECONDS, proxy.go)
        began = time.monotonic()
        going.start()
        assert client.set("stalled", b"x" * 1_000_000)
        assert time.monotonic() - began > QUIET_SECONDS
        assert client.strlen("stalled") == 1_000_000
        client.delete("stalled")


def test_a_redis_that_has_left_refuses_connections_until_it_comes_back(url_of_valkey: str) -> None:
    with Proxy(url_of_valkey) as proxy:
        client = connected(proxy)
        proxy.leave()
        with pytest.raises(redis.ConnectionError):
            client.execute_command("PING")
        with pytest.raises(redis.ConnectionError):
            connected(proxy)
        proxy.come_back()
        connected(proxy)
