"""Reads a URL of Redis, and refuses one that would not be understood as it was meant; without I/O and redis-py.

    redis://[user:password@]host[:6379][/db]        rediss:// with TLS        unix:///path
    redis+sentinel://[user:password@]host[:26379],host[:26379].../service[/db]     rediss+sentinel:// with TLS to all

User and password are those of Redis itself; those of Sentinels stand in the query.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from asgictl.errors import RedisError, suggestion

# What redis-py's connections take, but for what would change the answers that we parse (decode_responses, protocol);
# what its pools take means nothing here.
QUERY = {"db": r"\d+", "username": ".+", "password": ".+", "client_name": r"\S+"}
QUERY |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), r"\d+(\.\d+)?")
TLS_QUERY = {
    "ssl_ca_certs": ".+",
    "ssl_ca_path": ".+",
    "ssl_ca_data": "(?s:.+)",
    "ssl_certfile": ".+",
    "ssl_keyfile": ".+",
    "ssl_password": ".+",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "(?i:true|false|yes|no|[01tfyn])",
    "ssl_min_version": r"\d+",
    "ssl_ciphers": ".+",
}
SCHEMES = {"redis": QUERY, "rediss": QUERY | TLS_QUERY, "unix": QUERY}
SENTINEL_QUERY = {"sentinel_username": ".+", "sentinel_password": ".+"}
SENTINEL_PORT = 26379
_OF_SENTINELS = re.compile(r"(rediss?)\+sentinel://(.*@)?([^/?#@]+)/([^/?#]+)(/[^?]*)?(?:\?(.*))?")


class Place(NamedTuple):
    """Where Redis is. node: a URL that redis-py reads; with Sentinels, which have URLs too, its host is any."""

    node: str
    sentinels: tuple[str, ...] = ()
    service: str = ""


def parse_url(url: str) -> Place:
    """Return where Redis is; raises RedisError unless a URL says that, and no more than asgictl can heed.

    No value is quoted, for it may be a part of the password.
    """
    found = _OF_SENTINELS.fullmatch(url)
    if not found:
        _check(url, {})
        return Place(url)
    scheme, user, hosts, service, database, query = found.groups("")
    _check(f"{scheme}://{user}host{database}?{query}", SENTINEL_QUERY)
    options = dict(parse_qsl(query))
    name, password = (quote(options.pop(each, ""), safe="") for each in SENTINEL_QUERY)
    own = f"{name}:{password}@" if name or password else ""
    tls = urlencode({each: value for each, value in options.items() if each in TLS_QUERY})
    sentinels = tuple(f"{scheme}://{own}{_with_port(host)}?{tls}" for host in hosts.split(","))
    for each in sentinels:
        _check(each, {})
    return Place(f"{scheme}://{user}host{database}?{urlencode(options)}", sentinels, unquote(service))


def _with_port(host: str) -> str:
    return host if re.search(r":\d+$", host) and not host.endswith("]") else f"{host}:{SENTINEL_PORT}"


def _check(url: str, more: dict[str, str]) -> None:
    """Raise RedisError. more: options that it may have beside those of its scheme."""
    try:
        parts = urlsplit(url)
        known = SCHEMES[parts.scheme] | more
        is_right = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except (ValueError, KeyError):  # as of a port that is no number, and of another scheme
        is_right = False
    if not is_right or parts.fragment:
        raise RedisError(
            "--redis is not a URL of Redis, such as redis://host:6379 or redis+sentinel://host1,host2/SERVICE;"
            " percent-encode / ? # @ : in a password"
        )
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise RedisError(
            "--redis: behind host and port comes the number of a database alone, as in redis://host:6379/0"
        )
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            shown = name if name.isidentifier() else "one of its options"
            hint = suggestion(name, known) or f": the options are {', '.join(known)}"
            raise RedisError(f"--redis: {shown} cannot be set in the URL of Redis{hint}")
        if not re.fullmatch(known[name], value):
            raise RedisError(f"--redis: the option {name} of the URL of Redis has an invalid value")
