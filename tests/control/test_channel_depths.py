"""How full channels are: on each Redis that is promised."""

import time
from typing import Any

from asgictl.control.channel_depths import look
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.wire.manifest import Manifest, Path, encode_manifest
from asgictl.wire.messages import VERSION

KEYS = Keys("channels")
STREAM = KEYS.channel("http.request")


def test_what_waits_and_what_workers_have_are_told_apart(client: Any) -> None:
    client.flushall()
    assert look(client, KEYS) == {}
    client.sadd(KEYS.channels, STREAM)
    client.xgroup_create(STREAM, WORKERS, "0", mkstream=True)
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0, 0)}
    now = int(time.time() * 1000)
    for seconds in (30, 20, 10):
        client.xadd(STREAM, {"1": "x"}, id=f"{now - seconds * 1000}-0")
    client.xreadgroup(WORKERS, "w", {STREAM: ">"}, count=1)
    channel = look(client, KEYS)["http.request"]
    assert (channel.depth, channel.taken) == (3, 1)
    assert 19 < channel.oldest_seconds < 25
    client.xreadgroup(WORKERS, "w", {STREAM: ">"})
    assert look(client, KEYS) == {"http.request": (3, 3, 0.0, 1)}


def test_a_worker_s_own_channel_counts_with_the_channel_beside_it(client: Any) -> None:
    client.flushall()
    client.sadd(KEYS.channels, STREAM)
    own = STREAM + "@host.7.aa.asgi"
    client.zadd(KEYS.own, {own: 1})
    client.xgroup_create(own, WORKERS, "0", mkstream=True)
    client.xadd(STREAM, {"1": "x"})
    client.xadd(own, {"1": "x"}, id=f"{int(time.time() * 1000) - 30_000}-0")
    (found,) = look(client, KEYS).items()
    assert (found[0], found[1].depth, found[1].taken) == ("http.request", 2, 0)
    assert found[1].oldest_seconds > 29


def test_a_channel_that_redis_has_forgotten_is_empty(client: Any) -> None:
    client.flushall()
    client.sadd(KEYS.channels, STREAM)
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0, 0)}


def test_names_that_are_no_channels_are_left_out(client: Any) -> None:
    """A9."""
    client.flushall()
    other = KEYS.channel("other")
    client.set(other, "x")
    client.sadd(KEYS.channels, STREAM, other, KEYS.alive, b"\xc1", STREAM.encode() + b"\xc1")
    assert look(client, KEYS) == {"http.request": (0, 0, 0.0, 0)}


def test_readers_of_a_channel_are_counted(client: Any) -> None:
    client.flushall()
    client.sadd(KEYS.channels, STREAM)
    client.xgroup_create(STREAM, WORKERS, "0", mkstream=True)
    for consumer in ("a.0", "a.1"):
        client.xgroup_createconsumer(STREAM, WORKERS, consumer)  # as a worker does when it connects
    assert look(client, KEYS)["http.request"].readers == 2
    client.xgroup_delconsumer(STREAM, WORKERS, "a.1")
    assert look(client, KEYS)["http.request"].readers == 1


def test_a_channel_of_the_application_that_no_worker_has_read_is_there(client: Any) -> None:
    client.flushall()
    manifest = Manifest(VERSION, "", True, [Path("/ws", True, False, False, ".live")], {"/reports": ".slow"})
    client.set(KEYS.manifest, encode_manifest(manifest))
    client.xadd(KEYS.channel("http.request.slow"), {"1": "x"}, id=f"{int(time.time() * 1000) - 30_000}-0")
    found = look(client, KEYS)
    assert list(found) == ["http.request", "http.request.slow", "websocket.connect.live"]
    assert found["http.request.slow"][:2] == (1, 0)
    assert found["http.request.slow"].oldest_seconds > 29
    assert found["http.request.slow"].readers == 0
