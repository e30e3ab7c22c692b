"""A request's head, without I/O: its target, and what RFC 9112 and our limits refuse of what llhttp lets pass."""

from typing import Any

import httptools

from asgictl.config import Limits
from asgictl.interface import limits
from asgictl.wire.error_responses import HEADERS_TOO_LARGE, NOT_ONE_HOST, VERSION_UNKNOWN
from asgictl.wire.messages import Headers

Refusal = tuple[int, str, str]  # status, text, and the reason under which it is counted
_VERSIONS = frozenset({"1.0", "1.1"})


def refusal_of(
    version: str, url: bytes, headers: Headers, hosts: int, allowed: Limits, *, is_whole: bool
) -> Refusal | None:
    """Judge a head. Return how it is refused, None when it is not.

    Args:
        hosts: how many of the headers are Host.
        is_whole: it came in one read, so that it is no larger than a slice.
    """
    if len(headers) > allowed.header_fields:
        return 431, HEADERS_TOO_LARGE, limits.HEADERS_REFUSED
    if not (is_whole and allowed.header_bytes >= limits.SLICE_BYTES) and _size(url, headers) > allowed.header_bytes:
        return 431, HEADERS_TOO_LARGE, limits.HEADERS_REFUSED
    if version not in _VERSIONS:
        return 505, VERSION_UNKNOWN, limits.INVALID
    if hosts != 1 and (hosts or version == "1.1"):  # RFC 9112, section 3.2
        return 400, NOT_ONE_HOST, limits.INVALID
    return None


def target_of(target: bytes, headers: Headers) -> tuple[bytes, bytes, Headers] | None:
    """Return a target's path, its query, and the headers with the Host that counts; None when it is invalid."""
    if target[:1] == b"/" and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query, headers
    if target == b"*":  # RFC 9112, section 3.2.4
        return target, b"", headers
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return None
    if url.userinfo is not None:  # RFC 9110, section 4.2.4
        return None
    return url.path or b"/", url.query or b"", _with_host(headers, url) if url.host else headers


def _with_host(headers: Headers, url: Any) -> Headers:
    """Return headers with the Host of an absolute target, which counts (RFC 9112, section 3.2.2)."""
    host = b"[%b]" % url.host if b":" in url.host else url.host
    if url.port is not None:
        host += b":%d" % url.port
    return [(name, host if name == b"host" else value) for name, value in headers]


def _size(url: bytes, headers: Headers) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
