"""Which URLs of Redis are understood."""

import pytest
import redis
import redis.asyncio

from asgictl.errors import RedisError
from asgictl.layers.redis.url import TLS_QUERY, parse_url

TLS = "&".join(f"{name}={'1' if name.endswith('version') else 'none'}" for name in TLS_QUERY if "hostname" not in name)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6379/",
        "redis://host:6379/5",
        "redis://user:p%2Fss@host:6379/0",
        "redis://:secret@[::1]:6379?db=3&client_name=site",
        f"rediss://host?{TLS}&ssl_check_hostname=False",
        "unix:///run/redis.sock?db=1",
        "unix://user:secret@/run/redis.sock",
    ],
)
def test_a_url_is_understood(url: str) -> None:
    assert parse_url(url) == (url, (), "")
    for module in (redis, redis.asyncio):
        module.Redis.from_url(url).connection_pool.make_connection()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis+sentinel://h/s", ("redis://host?", ("redis://h:26379?",), "s")),
        (
            "redis+sentinel://u:p@h1:1,[::1],[::2]:3/s%20t/4?client_name=x&sentinel_password=a%2Fb",
            (
                "redis://u:p@host/4?client_name=x",
                ("redis://:a%2Fb@h1:1?", "redis://:a%2Fb@[::1]:26379?", "redis://:a%2Fb@[::2]:3?"),
                "s t",
            ),
        ),
        (
            "rediss+sentinel://h/s?ssl_check_hostname=no&sentinel_username=u&sentinel_password=p",
            ("rediss://host?ssl_check_hostname=no", ("rediss://u:p@h:26379?ssl_check_hostname=no",), "s"),
        ),
    ],
)
def test_sentinels_have_what_is_theirs_of_a_url(url: str, place: object) -> None:
    found = parse_url(url)
    assert found == place
    for each in (found.node, *found.sentinels):
        redis.Redis.from_url(each).connection_pool.make_connection()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "not a URL of Redis"),
        ("host:6379", "not a URL of Redis"),
        ("http://host", "not a URL of Redis"),
        ("redis://", "not a URL of Redis"),
        ("redis:///0", "not a URL of Redis"),
        ("redis://host:port", "not a URL of Redis"),
        ("redis://host:0", "not a URL of Redis"),
        ("redis://host:65536", "not a URL of Redis"),
        ("redis://[::1", "not a URL of Redis"),
        ("redis://:hun#ter2@host", "not a URL of Redis"),
        ("unix://", "not a URL of Redis"),
        ("sentinel://host/s", "not a URL of Redis"),
        ("redis+sentinel://host", "not a URL of Redis"),
        ("redis+sentinel://host/", "not a URL of Redis"),
        ("redis+sentinel://host:port/s", "not a URL of Redis"),
        ("redis+sentinel://host,/s", "not a URL of Redis"),
        ("redis+sentinel://host/s/x", "the number of a database"),
        ("redis+sentinel://host/s?foo=1", "foo cannot be set"),
        ("redis+sentinel://host/s?ssl_ca_certs=a.pem", "ssl_ca_certs cannot be set"),
        ("redis://host?sentinel_password=hunter2", "sentinel_password cannot be set"),
        ("redis://host/abc", "the number of a database"),
        ("redis://host/0/1", "the number of a database"),
        ("redis://host?decode_responses=True", "decode_responses cannot be set"),
        ("redis://host?protocol=3", "protocol cannot be set"),
        ("redis://host?socket_timeout=nan", "the option socket_timeout"),
        ("redis://host?max_connections=3", "max_connections cannot be set"),
        ("redis://host?ssl_ca_certs=a.pem", "ssl_ca_certs cannot be set"),
        ("rediss://host?ssl_ca_cert=a.pem", "did you mean ssl_ca_certs?"),
        ("redis://host?foo", "foo cannot be set"),
        ("redis://host?hun-ter2=1", "one of its options"),
        ("redis://host?db=hunter2", "the option db"),
        ("redis://host?db=", "the option db"),
        ("rediss://host?ssl_cert_reqs=hunter2", "the option ssl_cert_reqs"),
    ],
)
def test_a_url_is_refused_without_its_values(url: str, said: str) -> None:
    with pytest.raises(RedisError) as refused:
        parse_url(url)
    assert said in str(refused.value)
    assert "--redis" in str(refused.value)
    assert "hun" not in str(refused.value)
    assert "\n" not in str(refused.value)
