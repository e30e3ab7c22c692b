"""Whether a Redis can carry events, on a real server."""

from collections.abc import Iterator
from typing import Any

import pytest

from asgictl.errors import RedisError
from asgictl.layers.redis.sync_client import check_redis

PASSWORD = "hunter2"


def test_a_redis_that_fits_passes(url: str) -> None:
    check_redis(url)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1",
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1?password={PASSWORD}",
        f"unix://user:{PASSWORD}@/absent",
        f"unix:///absent?password={PASSWORD}",
        f"redis://:{PASSWORD}/@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"http://:{PASSWORD}@127.0.0.1:1",
        f"redis://:{PASSWORD}@127.0.0.1:1/?db={PASSWORD}",
    ],
)
def test_a_redis_that_cannot_be_reached_is_told_without_its_password(url: str) -> None:
    with pytest.raises(RedisError, match="--redis") as caught:
        check_redis(url)
    assert PASSWORD not in str(caught.value)


def test_a_redis_that_would_evict_events_is_refused_with_what_to_set(url: str, client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RedisError, match=r"maxmemory-policy to noeviction, not allkeys-lru"):
        check_redis(url)


@pytest.fixture
def protected(url: str, client: Any) -> Iterator[str]:
    """The same server, which now wants a password from whoever connects."""
    client.config_set("requirepass", PASSWORD)
    yield url
    client.config_set("requirepass", "")


def test_a_redis_that_wants_a_password_says_where_to_put_it(protected: str) -> None:
    with pytest.raises(RedisError, match="wants a password"):
        check_redis(protected)
    check_redis(f"{protected}?password={PASSWORD}")


def test_a_wrong_password_is_not_repeated(protected: str) -> None:
    with pytest.raises(RedisError, match="password") as caught:
        check_redis(f"{protected}?password=wr0ng")
    assert "wr0ng" not in str(caught.value)


def test_an_old_redis_is_refused_by_its_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis.Redis.info", lambda client: {"redis_version": "6.0.16"})
    with pytest.raises(RedisError, match=r"6\.0\.16; 6\.2 is the oldest"):
        check_redis(url)
