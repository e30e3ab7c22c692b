"""Whether a page may open a WebSocket: the Origin header, which browsers always send (RFC 6455, section 10.2)."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from asgictl.wire.error_responses import ORIGIN_REFUSED, plain_text
from asgictl.wire.messages import POLICY_VIOLATION, Close

DEFAULT_PORTS = {"http": 80, "https": 443}

REFUSAL = Close(POLICY_VIOLATION, "", 403, *plain_text(ORIGIN_REFUSED))


def is_allowed(headers: Iterable[tuple[bytes, bytes]], allowed: Sequence[str]) -> bool:
    """Whether each Origin matches one of the globs `allowed`; without any, whether it is of the Host's host and port.

    Who sends no Origin is no browser, and is allowed. X-Forwarded-Host does not count.
    """
    origins, hosts = ([_text(value) for name, value in headers if name == wanted] for wanted in (b"origin", b"host"))
    if allowed:
        return all(any(origin == glob or fnmatchcase(origin, glob) for glob in allowed) for origin in origins)
    return all(len(hosts) == 1 and _is_same_host(origin, hosts[0]) for origin in origins)


def _is_same_host(origin: str, host: str) -> bool:
    """Compare host and port; the Origin's scheme gives the port of both where none is said: TLS may end at a proxy."""
    try:
        left, right = urlsplit(origin), urlsplit(f"//{host}")
        port = DEFAULT_PORTS.get(left.scheme)
        return bool(left.hostname) and (left.hostname, left.port or port) == (right.hostname, right.port or port)
    except ValueError:  # a port that is none
        return False


def _text(value: bytes) -> str:
    return bytes(value).decode("latin-1").lower()
