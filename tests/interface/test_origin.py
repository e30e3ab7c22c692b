"""Whose pages may open a WebSocket."""

import pytest

from asgictl.interface.origin import is_allowed


def headers(origin: str | None, host: str = "example.com") -> list[tuple[bytes, bytes]]:
    return [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin is not None else [])]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),
        ("http://example.com", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com", "example.com:443"),
        ("HTTPS://Example.com", "eXample.com"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_the_same_host_and_port_is_allowed_and_so_is_who_names_none(origin: str | None, host: str) -> None:
    assert is_allowed(headers(origin, host), ())


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.com", "example.com"),
        ("https://example.com.evil.com", "example.com"),
        ("https://sub.example.com", "example.com"),
        ("http://example.com:8001", "example.com:8000"),
        ("http://example.com", "example.com:8000"),
        ("http://example.com", "example.com:443"),
        ("null", "example.com"),
        ("", ""),
        ("http://example.com:port", "example.com"),
        ("http://[", "example.com"),
        ("http://example.com@evil.com", "example.com"),
        ("\xff", "example.com"),
    ],
)
def test_any_other_page_is_not(origin: str, host: str) -> None:
    assert not is_allowed(headers(origin, host), ())


def test_every_origin_counts_and_the_host_is_one() -> None:
    ours, host = (b"origin", b"http://example.com"), (b"host", b"example.com")
    assert not is_allowed([host, ours, (b"origin", b"http://evil.com")], ())
    assert not is_allowed([host, (b"host", b"evil.com"), ours], ())
    assert not is_allowed([ours], ())


def test_a_forwarded_host_is_not_looked_at() -> None:
    assert not is_allowed([*headers("https://example.com", "10.0.0.1:8000"), (b"x-forwarded-host", b"example.com")], ())


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a.b.example.com", True),
        ("https://example.com", False),
        ("http://a.example.com", False),
        ("https://a.example.com:444", False),
        ("http://[::1]:8000", True),
        ("https://host", False),
        ("null", False),
    ],
)
def test_globs_stand_in_place_of_the_same_host(origin: str, allowed: bool) -> None:
    assert is_allowed(headers(origin, "host"), ("https://*.example.com", "http://[::1]:8000")) is allowed
    assert is_allowed(headers(origin, "host"), ("*",))
    assert is_allowed(headers(None, "host"), ("https://*.example.com",))
