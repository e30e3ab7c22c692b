"""What trusted proxies say of their clients."""

import pytest

from asgictl.interface.forwarded import Trusted
from asgictl.wire.messages import Address

PROXY = ("10.0.0.1", 5000)


@pytest.mark.parametrize(
    ("trusted", "peer", "expected"),
    [
        ("10.0.0.1", PROXY, True),
        ("10.0.0.2", PROXY, False),
        ("10.0.0.2, 10.0.0.1", PROXY, True),
        ("10.0.0.0/8", PROXY, True),
        ("10.0.0.7/8", PROXY, True),
        ("192.0.2.0/24", PROXY, False),
        ("*", PROXY, True),
        ("", PROXY, False),
        (" , ", PROXY, False),
        ("::1", ("::1", 1), True),
        ("fd00::/8", ("fd00::5", 1), True),
        ("10.0.0.0/8", ("fd00::5", 1), False),
        ("proxy", ("proxy", 1), True),
        ("10.0.0.0/8", ("proxy", 1), False),
        ("127.0.0.1", None, True),
        ("*", None, True),
        ("", None, False),
    ],
)
def test_whose_word_counts(trusted: str, peer: Address | None, expected: bool) -> None:
    assert Trusted(trusted).trusts(peer) is expected


CLIENTS = {
    b"1.1.1.1": "1.1.1.1",
    b" \t1.1.1.1\t": "1.1.1.1",
    b"1.1.1.1:80": "1.1.1.1",
    b"[2001:db8::1]:80": "2001:db8::1",
    b"2001:db8::1": "2001:db8::1",
    b"2.2.2.2, 1.1.1.1": "1.1.1.1",
    b"2.2.2.2, 1.1.1.1, 10.0.0.2, 10.0.0.1:90": "1.1.1.1",
    b"10.0.0.3, 10.0.0.2": "10.0.0.3",
    b"junk": None,
    b"1.1.1.1, junk": None,
    b"1.1.1.1.1": None,
    b"1.1.1.1,": None,
    b"<script>": None,
    b"\xff": None,
}


@pytest.mark.parametrize("value", CLIENTS)
def test_a_client_is_the_last_that_is_no_trusted_proxy(value: bytes) -> None:
    host = CLIENTS[value]
    found = Trusted("10.0.0.0/8").client([(b"a", b"b"), (b"x-forwarded-for", value)], PROXY)
    assert found == ((host, 0) if host else None)


def test_several_headers_are_one_list() -> None:
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2"), (b"x-forwarded-for", b"10.0.0.2")]
    assert Trusted("10.0.0.0/8").client(headers, PROXY) == ("2.2.2.2", 0)
    assert Trusted("*").client(headers, PROXY) == ("1.1.1.1", 0)


@pytest.mark.parametrize("peer", [PROXY, None])
def test_a_proxy_that_says_nothing_is_the_client_itself(peer: Address | None) -> None:
    for header in [(b"forwarded", b"for=1.1.1.1"), (b"x-forwarded-for", b"")]:
        assert Trusted("*").client([header], peer) == peer


@pytest.mark.parametrize(
    ("values", "scheme", "expected"),
    [
        ([b"https"], "http", "https"),
        ([b"http"], "https", "http"),
        ([b"\tHTTPS "], "http", "https"),
        ([b"wss"], "http", "https"),
        ([b"ws"], "http", "http"),
        ([b"https"], "ws", "wss"),
        ([b"http"], "wss", "ws"),
        ([b"https", b"http"], "http", "http"),
        ([b"gopher"], "https", "https"),
        ([b"https, http"], "http", "http"),
        ([], "https", "https"),
    ],
)
def test_a_scheme_is_the_client_s(values: list[bytes], scheme: str, expected: str) -> None:
    assert Trusted("*").scheme([(b"x-forwarded-proto", value) for value in values], scheme) == expected
