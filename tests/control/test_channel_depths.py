"""How full channels are: on each Redis that is promised."""

import time
from typing import Any

from asgictl.control.channel_depths import look
from asgictl.layers.redis.keys import WORKERS, Keys

KEYS = Keys("channels")
STREAM = KEYS.channel("http.request")


def test_what_waits_and_what_workers_have_are_told_apart(client: Any) -> None:
    client.flushall()
    assert look(client, KEYS) == {}
    client.sadd(KEYS.channels, STREAM)
    client.xgroup_create(STREAM, WORKERS, "0", mkstream=True)
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0)}
    now = int(time.time() * 1000)
    for seconds in (30, 20, 10):
        client.xadd(STREAM, {"1": "x"}, id=f"{now - seconds * 1000}-0")
    client.xreadgroup(WORKERS, "w", {STREAM: ">"}, count=1)
    channel = look(client, KEYS)["http.request"]
    assert (channel.depth, channel.taken) == (3, 1)
    assert 19 < channel.oldest_seconds < 25
    client.xreadgroup(WORKERS, "w", {STREAM: ">"})
    assert look(client, KEYS) == {"http.request": (3, 3, 0.0)}


def test_a_channel_that_redis_has_forgotten_is_empty(client: Any) -> None:
    client.flushall()
    client.sadd(KEYS.channels, STREAM)
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0)}


def test_names_that_are_no_channels_are_left_out(client: Any) -> None:
    """A9."""
    client.flushall()
    other = KEYS.channel("other")
    client.set(other, "x")
    client.sadd(KEYS.channels, STREAM, other, KEYS.alive, b"\xc1", STREAM.encode() + b"\xc1")
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0)}
