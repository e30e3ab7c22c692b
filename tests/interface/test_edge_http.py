"""What comes over an HTTP connection, and how it is answered: on raw bytes, without a socket."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgictl.interface import limits as bounds
from asgictl.interface.limits import SLICE_BYTES
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import GET, HANDSHAKE, HOST, Asked, Backend, Server, connected, hello, post

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"


@scenario
async def test_a_request_is_one_call_and_its_answer_is_written_at_once() -> None:
    server, backend, client = connected(hello)
    client.says(b"GET /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n")
    assert client.hears() == OK
    (asked,) = backend.asked
    scope = asked.scope
    assert (scope.method, scope.path, scope.raw_path, scope.query_string) == ("GET", "/a b", b"/a%20b", b"c=d")
    assert (scope.http_version, scope.scheme, scope.headers) == ("1.1", "http", [(b"host", b"a"), (b"x-b", b"c")])
    assert (scope.client, scope.server) == (("192.0.2.1", 5000), ("192.0.2.2", 80))
    assert (asked.body, asked.length, asked.more) == (b"", 0, False)
    assert (server.state.total_requests, server.edge.requests) == (1, 0)
    assert not client.is_ended


@scenario
async def test_a_connection_is_kept_for_the_next_request() -> None:
    _, backend, client = connected(hello)
    client.says(GET, GET)
    assert client.hears() == OK * 2
    assert len(backend.asked) == 2
    assert not client.is_ended


@scenario
async def test_a_client_that_wants_its_connection_closed_is_told_so() -> None:
    _, _, client = connected(hello)
    client.says(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (client.hears(), client.transport.told) == (LAST, ["eof"])


@scenario
async def test_an_application_may_have_the_connection_closed() -> None:
    _, _, client = connected(lambda asked: asked.answer(connection=b"Close"))
    client.says(GET)
    assert (client.hears(), client.transport.told) == (LAST, ["eof"])


@scenario
async def test_the_servers_headers_are_added() -> None:
    server, _, client = connected(lambda asked: asked.answer(server=b"own"))
    server.state.default_headers = [(b"date", b"today"), (b"Server", b"default")]
    client.says(GET)
    head = client.hears().partition(b"\r\n\r\n")[0].lower()
    assert (head.count(b"date: today"), head.count(b"server: own"), head.count(b"server:")) == (1, 1, 1)


@scenario
async def test_http_1_0_closes_whatever_it_asks_for() -> None:
    _, _, client = connected(hello)
    client.says(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (client.hears(), client.transport.told) == (LAST, ["eof"])


@scenario
async def test_http_1_0_is_sent_no_chunks() -> None:
    _, backend, client = connected()
    client.says(b"GET / HTTP/1.0\r\n\r\n")
    (asked,) = backend.asked
    asked.client.respond(200, [], b"he", more=True)
    asked.client.write(b"llo", more=False)
    assert client.hears() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"
    assert client.transport.told == ["eof"]


@pytest.mark.parametrize(
    ("headers", "framing", "body"),
    [
        ([], b"transfer-encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ([(b"content-length", b"5")], b"content-length: 5\r\n", b"hello"),
    ],
)
@scenario
async def test_a_response_in_parts_has_one_framing(headers: Any, framing: bytes, body: bytes) -> None:
    _, backend, client = connected()
    client.says(GET)
    (asked,) = backend.asked
    asked.client.respond(200, headers, b"he", more=True)
    assert client.transport.data
    asked.client.write(b"llo", more=False)
    assert client.hears() == b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + body


@pytest.mark.parametrize("status", [204, 304])
@scenario
async def test_a_response_without_a_body_has_neither_body_nor_framing(status: int) -> None:
    _, _, client = connected(lambda asked: asked.answer(status=status))
    client.says(GET)
    head, _, body = client.hears().partition(b"\r\n\r\n")
    assert (body, head.count(b"\r\n")) == (b"", 0)
    assert not client.is_ended


@scenario
async def test_a_head_request_is_answered_with_the_length_alone() -> None:
    _, _, client = connected(lambda asked: asked.answer(content_length=b"5"))
    client.says(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.hears() == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


@scenario
async def test_a_head_request_may_be_answered_in_parts() -> None:
    _, backend, client = connected()
    client.says(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    backend.asked[0].client.respond(200, [], b"he", more=True)
    backend.asked[0].client.write(b"llo", more=False)
    assert client.body == b""
    client.says(GET)
    assert len(backend.asked) == 2


@pytest.mark.parametrize(("status", "line"), [(404, b"404 Not Found"), (600, b"600 "), (999, b"999 ")])
@scenario
async def test_a_status_that_nobody_knows_is_written(status: int, line: bytes) -> None:
    """B6."""
    _, _, client = connected(lambda asked: asked.answer(status=status))
    client.says(GET)
    assert client.hears().startswith(b"HTTP/1.1 " + line + b"\r\n")


@pytest.mark.parametrize("length", [4, 6])
@pytest.mark.parametrize("in_parts", [True, False])
@scenario
async def test_a_body_that_is_not_as_long_as_it_says_cuts_the_connection(
    length: int, in_parts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _, backend, client = connected()
    client.says(GET)
    (asked,) = backend.asked
    headers = [(b"content-length", b"%d" % length)]
    if in_parts:
        asked.client.respond(200, headers, b"", more=True)
        asked.client.write(b"hello", more=False)
    else:
        asked.client.respond(200, headers, b"hello", more=False)
    assert b"hello" not in client.transport.data
    assert client.transport.told == ["close"]
    assert "GET /: " in caplog.text
    await settled()
    asked.client.write(b"more", more=False)  # whoever answers may not have heard of it


@scenario
async def test_a_response_that_is_cut_off_is_seen_to_be() -> None:
    server, backend, client = connected()
    client.says(GET)
    backend.asked[0].client.respond(200, [], b"he", more=True)
    backend.asked[0].client.abort()
    assert client.body == b"2\r\nhe\r\n"
    assert client.transport.told == ["close"]
    await settled()
    assert server.edge.requests == 0


@scenario
async def test_a_response_whose_end_tells_its_length_is_cut_off_with_a_reset() -> None:
    _, backend, client = connected()
    client.says(b"GET / HTTP/1.0\r\n\r\n")
    backend.asked[0].client.respond(200, [], b"he", more=True)
    backend.asked[0].client.abort()
    assert client.transport.told == ["abort"]
    assert client.transport.socket.options


# Requests behind requests.


@scenario
async def test_pipelined_requests_are_answered_one_after_another() -> None:
    _, backend, client = connected()
    client.says(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(3)))
    for number in range(3):
        await settled()
        assert [asked.scope.path for asked in backend.asked] == [f"/{each}" for each in range(number + 1)]
        backend.asked[number].answer(b"%d" % number)
    assert client.hears() == b"".join(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % each for each in range(3))


@scenario
async def test_few_requests_wait_for_the_first() -> None:
    _, backend, client = connected()
    client.says(GET * 10_000)
    await settled()
    assert len(backend.asked) == 1
    assert 0 < len(client.protocol._queue) <= SLICE_BYTES // len(GET)
    assert not client.transport.is_reading


@scenario
async def test_all_of_many_requests_are_answered() -> None:
    _, backend, client = connected(hello)
    client.says(GET * 3_000)
    while len(backend.asked) < 3_000:
        await settled()
    assert client.hears() == OK * 3_000
    assert client.transport.is_reading


@scenario
async def test_nothing_is_answered_behind_a_response_that_closes() -> None:
    _, backend, client = connected(lambda asked: asked.answer(connection=b"close"))
    client.says(GET * 2)
    await settled()
    assert client.hears() == LAST
    client.says(GET)
    await settled()
    assert (client.hears(), len(backend.asked)) == (b"", 1)


@scenario
async def test_what_is_wrong_behind_a_request_is_answered_behind_it() -> None:
    _, backend, client = connected()
    client.says(GET + b"junk\r\n\r\n")
    await settled()
    assert client.hears() == b""
    backend.asked[0].answer()
    assert client.hears() == OK
    await settled()
    assert client.status == 400
    assert client.transport.told == ["eof"]


@settings(deadline=None)  # a loop is run for each cut
@given(st.lists(st.sampled_from(["get", "post", "chunked", "offer"]), min_size=1, max_size=4), st.data())
def test_requests_are_the_same_wherever_they_are_cut(kinds: list[str], data: st.DataObject) -> None:
    messages = {
        "get": GET,
        "post": post(3) + b"abc",
        "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        "offer": post(3, b"Connection: Upgrade", b"Upgrade: h2c") + b"abc",
    }
    stream = b"".join(messages[kind] for kind in kinds)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    def read_all(asked: Asked) -> None:
        if asked.more:
            asked.read()

    @scenario
    async def run() -> None:
        _, backend, client = connected(read_all)
        for piece in pieces:
            client.says(piece)
        for number in range(len(kinds)):
            await settled()
            backend.asked[number].answer()
        await settled()
        assert [asked.whole for asked in backend.asked] == [b"" if kind == "get" else b"abc" for kind in kinds]
        assert client.hears() == OK * len(kinds)

    run()


# What is no request, or none that is served.


@pytest.mark.parametrize("hosts", [b"", HOST * 2, b"Host: a\r\nHost: b\r\n"])
@scenario
async def test_a_request_has_one_host(hosts: bytes) -> None:
    """RFC 9112, section 3.2."""
    server, backend, client = connected(hello)
    client.says(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
    assert (client.status, client.body, backend.asked) == (400, b"A request must have exactly one Host header.\n", [])
    assert client.transport.told == ["eof"]
    assert server.rejections == {bounds.INVALID: 1}


@scenario
async def test_http_1_0_needs_no_host_but_has_no_two() -> None:
    _, backend, client = connected(hello)
    client.says(b"GET / HTTP/1.0\r\n\r\n")
    assert (client.status, len(backend.asked)) == (200, 1)
    _, _, client = connected(hello)
    client.says(b"GET / HTTP/1.0\r\n" + HOST * 2 + b"\r\n")
    assert client.status == 400


@pytest.mark.parametrize(("version", "status"), [(b"2.0", 505), (b"0.9", 505), (b"1.2", 400), (b"3.0", 400)])
@scenario
async def test_an_unknown_version_is_not_served(version: bytes, status: int) -> None:
    """What llhttp does not know either is invalid."""
    _, backend, client = connected(hello)
    client.says(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    assert (client.status, backend.asked, client.transport.told) == (status, [], ["eof"])


@pytest.mark.parametrize(
    "data",
    [
        b"junk\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
@scenario
async def test_what_is_no_request_is_a_400(data: bytes) -> None:
    server, backend, client = connected(hello)
    client.says(data)
    assert (client.status, backend.asked) == (400, [])
    assert client.transport.told == ["eof"]
    assert server.rejections == {bounds.INVALID: 1}
    client.says(GET)
    assert client.hears().count(b"HTTP/1.1") == 1


TARGETS = {
    b"/": ("/", b"/", b""),
    b"*": ("*", b"*", b""),
    b"http://a": ("/", b"/", b""),
    b"http://a/b%2fc?d": ("/b/c", b"/b%2fc", b"d"),
    b"/a?": ("/a", b"/a", b""),
    b"/a?b?c": ("/a", b"/a", b"b?c"),
    b"//a": ("//a", b"//a", b""),
    b"/%zz%": ("/%zz%", b"/%zz%", b""),
    b"/%ff": ("/\ufffd", b"/%ff", b""),
    b"/a#b": ("/a", b"/a", b""),
}


@pytest.mark.parametrize("target", TARGETS)
@scenario
async def test_a_target_is_split_and_decoded(target: bytes) -> None:
    """RFC 9112, section 3.2."""
    _, backend, client = connected(hello)
    client.says(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.status == 200
    scope = backend.asked[0].scope
    assert (scope.path, scope.raw_path, scope.query_string) == TARGETS[target]


@scenario
async def test_a_path_begins_with_the_root_path() -> None:
    backend = Backend(hello)
    client = Server(backend, root_path="/below").connect()
    client.says(GET)
    scope = backend.asked[0].scope
    assert (scope.root_path, scope.path, scope.raw_path) == ("/below", "/below/", b"/below/")


FORWARDED = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\r\n"


@pytest.mark.parametrize(
    ("trusted", "seen"), [("192.0.2.0/24", (("1.1.1.1", 0), "https")), ("", (("192.0.2.1", 5000), "http"))]
)
@scenario
async def test_a_trusted_proxy_s_word_counts(trusted: str, seen: object) -> None:
    backend = Backend(hello)
    Server(backend, trusted).connect().says(FORWARDED)
    assert (backend.asked[0].scope.client, backend.asked[0].scope.scheme) == seen


@scenario
async def test_a_secure_connection_is_told_of() -> None:
    backend = Backend(hello)
    Server(backend).connect(is_secure=True).says(GET)
    assert backend.asked[0].scope.scheme == "https"


# Offers to upgrade.


@scenario
async def test_connect_is_refused() -> None:
    _, backend, client = connected(hello)
    client.says(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await settled()
    assert (client.status, client.body) == (400, b"CONNECT is not supported.\n")
    assert (backend.asked, client.transport.told) == ([], ["eof"])


@scenario
async def test_a_body_behind_an_offer_is_a_body_wherever_it_is_cut() -> None:
    body = b"GET /b HTTP/1.1\r\n\r\n"
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\nX-A: b\r\n"
    head = b"PUT /a HTTP/1.1\r\nHost: a\r\n" + offer + b"Content-Length: %d\r\n\r\n" % len(body)
    data = head + body + b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"
    expected = [("PUT", "/a", body, [b"h2c"]), ("GET", "/c", b"", [])]

    async def served(*pieces: bytes) -> list[tuple[str, str, bytes, list[bytes]]]:
        _, backend, client = connected(lambda asked: asked.read() if asked.more else None)
        client.says(*pieces)
        for number in range(2):
            await settled()
            backend.asked[number].answer()
        found = []
        for asked in backend.asked:
            offers = [value for name, value in asked.scope.headers if name == b"upgrade"]
            found.append((asked.scope.method, asked.scope.path, asked.whole, offers))
        client.leaves()
        return found

    for place in range(1, len(data)):
        assert await served(data[:place], data[place:]) == expected
    assert await served(*(data[place : place + 1] for place in range(len(data)))) == expected


NO_HANDSHAKE = [
    HANDSHAKE.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    HANDSHAKE.replace(b"websocket", b"h2c"),
    HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key"),
]


@pytest.mark.parametrize("data", NO_HANDSHAKE)
@scenario
async def test_any_other_offer_is_an_ordinary_request(data: bytes) -> None:
    """RFC 9110, section 7.8."""
    _, backend, client = connected(hello)
    client.says(data)
    assert (client.status, len(backend.asked), backend.opened) == (200, 1, [])
    assert b"upgrade" in dict(backend.asked[0].scope.headers)


@scenario
async def test_an_offer_behind_a_request_waits_for_it_with_its_body() -> None:
    _, backend, client = connected()
    client.says(GET + post(3, b"Connection: Upgrade", b"Upgrade: h2c") + b"abc" + GET)
    for number in range(3):
        backend.asked[number].answer()
        await settled()
    assert [asked.whole for asked in backend.asked] == [b"", b"abc", b""]
    assert client.hears() == OK * 3


@scenario
async def test_a_handshake_behind_a_request_waits_for_its_answer() -> None:
    _, backend, client = connected()
    client.says(GET + HANDSHAKE + b"\x81\x81\0\0\0\0x")
    await settled()
    assert (backend.opened, client.hears()) == ([], b"")
    backend.asked[0].answer()
    await settled()
    first, _, rest = client.hears().partition(b"hello")
    assert (first + b"hello", rest.startswith(b"HTTP/1.1 101 ")) == (OK, True)
    assert backend.opened[0].frames == ["x"]
