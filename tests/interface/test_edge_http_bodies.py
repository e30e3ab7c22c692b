"""Bodies of requests on raw bytes: with their request, when they are asked for, or left unread."""

import pytest

from asgictl.interface import limits
from asgictl.interface.limits import DRAIN_BYTES, HIGH_WATER_BYTES, SLICE_BYTES
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import GET, Asked, connected, hello, post

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECT = b"Expect: 100-continue"


@pytest.mark.parametrize("place", [0, 1, 3])
@scenario
async def test_a_small_body_goes_with_its_request(place: int) -> None:
    _, backend, client = connected(inline_bytes=3)
    client.says(post(3) + b"abc"[:place], b"abc"[place:])
    (asked,) = backend.asked
    assert (asked.body, asked.length, asked.more) == (b"abc", 3, False)


@scenario
async def test_a_small_body_that_does_not_come_at_once_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_SECONDS", 0.0)
    _, backend, client = connected()
    client.says(post(3) + b"a")
    assert backend.asked == []
    await settled()
    (asked,) = backend.asked
    assert (asked.body, asked.length, asked.more) == (b"", 3, True)
    asked.read()
    client.says(b"bc")
    assert asked.parts == [(b"a", True), (b"bc", False)]
    await settled()
    assert len(backend.asked) == 1


@pytest.mark.parametrize("head", [post(4), CHUNKED, post(3, EXPECT)])
@scenario
async def test_any_other_body_is_to_be_asked_for(head: bytes) -> None:
    _, backend, client = connected(inline_bytes=3)
    client.says(head)
    (asked,) = backend.asked
    assert (asked.body, asked.length, asked.more) == (b"", {CHUNKED: -1, post(4): 4}.get(head, 3), True)


@scenario
async def test_a_part_is_given_for_each_time_it_is_asked_for() -> None:
    _, backend, client = connected()
    client.says(CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n")
    (asked,) = backend.asked
    assert asked.parts == []
    asked.client.want()
    assert asked.parts == [(b"ab", True)]
    client.says(b"1\r\nc\r\n")
    assert asked.parts == [(b"ab", True)]
    asked.client.want()
    asked.client.want()
    assert asked.parts[1:] == [(b"c", True)]
    client.says(b"0\r\nTrailer: a\r\n\r\n")
    assert asked.parts[2:] == [(b"", False)]
    assert asked.scope.headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    asked.client.want()
    assert len(asked.parts) == 3


@scenario
async def test_a_body_may_be_as_long_as_it_likes() -> None:
    size = 3 << 20
    _, backend, client = connected(lambda asked: asked.read())
    client.says(post(size), bytes(size))
    (asked,) = backend.asked
    while sum(len(data) for data, _ in asked.parts) < size:
        await settled()
    assert asked.parts[-1][1] is False
    asked.answer()
    assert client.status == 200


@scenario
async def test_a_client_is_not_read_while_its_body_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALL_READ_AHEAD_BYTES", 0)
    _, backend, client = connected()
    client.says(post(3 << 20), bytes(HIGH_WATER_BYTES - 1))
    await settled()
    assert client.transport.is_reading
    client.says(bytes(1))
    await settled()
    assert not client.transport.is_reading
    backend.asked[0].client.want()
    await settled()
    assert client.transport.is_reading


@scenario
async def test_one_is_read_ahead_while_all_together_keep_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_AHEAD_BYTES", 100_000)
    monkeypatch.setattr(limits, "ALL_READ_AHEAD_BYTES", 150_000)
    server, backend, client = connected()
    client.says(post(3 << 20), bytes(99_999))
    assert client.transport.is_reading
    client.says(bytes(1))
    assert not client.transport.is_reading
    other = server.connect()
    other.says(post(3 << 20), bytes(HIGH_WATER_BYTES))
    assert not other.transport.is_reading
    assert server.edge.body_bytes == 100_000 + HIGH_WATER_BYTES
    backend.asked[0].client.want()
    assert server.edge.body_bytes == HIGH_WATER_BYTES
    other.leaves()
    assert server.edge.body_bytes == 0


@scenario
async def test_what_was_read_at_once_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALL_READ_AHEAD_BYTES", 0)
    _, backend, client = connected()
    client.says(post(3 << 20) + bytes(256 << 10))
    await settled()
    kept = client.protocol._reading.body_bytes
    assert HIGH_WATER_BYTES <= kept <= HIGH_WATER_BYTES + SLICE_BYTES
    backend.asked[0].client.want()
    assert [len(data) for data, _ in backend.asked[0].parts] == [kept]


# Expect: 100-continue (RFC 9110, section 10.1.1).


@scenario
async def test_a_client_is_told_to_go_on_at_the_first_read_alone() -> None:
    _, backend, client = connected()
    client.says(post(3, EXPECT))
    (asked,) = backend.asked
    assert client.hears() == b""
    asked.read()
    assert client.hears() == CONTINUE
    client.says(b"a", b"bc")
    assert (asked.whole, client.hears()) == (b"abc", b"")
    asked.answer()
    assert client.status == 200
    assert not client.is_ended


@scenario
async def test_a_client_that_does_not_wait_is_not_told_to_go_on() -> None:
    _, backend, client = connected()
    client.says(post(3, EXPECT) + b"abc")
    backend.asked[0].read() if backend.asked[0].more else None
    assert (backend.asked[0].whole, client.hears()) == (b"abc", b"")


@scenario
async def test_an_answer_without_a_read_takes_its_place() -> None:
    _, _, client = connected(lambda asked: asked.answer(status=401))
    client.says(post(3, EXPECT))
    assert client.transport.data.count(b"HTTP/1.1") == 1
    assert (client.status, client.transport.told) == (401, ["eof"])
    assert b"connection: close" in client.hears()


@scenario
async def test_nothing_is_said_once_the_response_has_begun() -> None:
    _, backend, client = connected()
    client.says(post(3, EXPECT))
    backend.asked[0].client.respond(200, [], b"he", more=True)
    client.hears()
    backend.asked[0].client.want()
    assert client.hears() == b""


@scenario
async def test_http_1_0_expects_nothing() -> None:
    _, backend, client = connected()
    client.says(post(100_000, EXPECT, version=b"1.0"))
    backend.asked[0].read()
    assert client.hears() == b""


# Answers that come before the body is read.


@scenario
async def test_the_rest_of_a_small_body_is_dropped_and_the_connection_kept() -> None:
    server, backend, client = connected(hello, inline_bytes=0)
    client.says(post(10) + b"01234")
    assert client.status == 200
    assert b"connection: close" not in client.hears()
    client.says(b"56789" + GET)
    await settled()
    assert (len(backend.asked), client.status, client.is_ended) == (2, 200, False)
    assert server.edge.linger.oldest() is None


@scenario
async def test_a_request_behind_a_dropped_body_waits_for_its_end() -> None:
    _, backend, client = connected(hello, inline_bytes=0)
    client.says(post(DRAIN_BYTES), bytes(DRAIN_BYTES - 1))
    assert (len(backend.asked), client.protocol._draining.body_bytes) == (1, 0)
    client.says(b"0" + GET)
    await settled()
    assert len(backend.asked) == 2


@scenario
async def test_a_small_body_whose_rest_does_not_come_ends_the_connection() -> None:
    server, _, client = connected(hello, inline_bytes=0)
    client.says(post(10))
    server.passes(server.edge.linger, limits.LINGER_SECONDS - 0.1)
    assert not client.is_ended
    server.passes(server.edge.linger, limits.LINGER_SECONDS)
    assert client.transport.told == ["abort"]


@pytest.mark.parametrize("head", [post(DRAIN_BYTES + 1), CHUNKED])
@scenario
async def test_any_other_body_ends_the_connection_behind_the_response(head: bytes) -> None:
    server, backend, client = connected(hello)
    client.says(head)
    assert (client.status, client.transport.told) == (200, ["eof"])
    assert b"connection: close" in client.hears()
    client.says(bytes(200 << 10))  # so that the client can read its response
    await settled()
    assert (client.transport.is_reading, client.hears()) == (True, b"")
    server.passes(server.edge.linger, limits.LINGER_SECONDS)
    assert client.transport.told == ["eof", "abort"]
    await settled()
    assert (server.state.connections, backend.asked[0].told) == (set(), [])


@scenario
async def test_an_answer_may_begin_before_the_body_is_read() -> None:
    _, backend, client = connected(inline_bytes=0)
    client.says(post(10) + b"01234")
    (asked,) = backend.asked
    asked.client.respond(200, [], b"he", more=True)
    asked.read()
    client.says(b"56789")
    assert asked.parts == [(b"01234", True), (b"56789", False)]
    asked.client.write(b"llo", more=False)
    assert not client.is_ended


# Bodies that go wrong.


@scenario
async def test_a_wrong_chunk_ends_a_request_that_is_under_way() -> None:
    server, backend, client = connected(lambda asked: asked.read())
    client.says(CHUNKED, b"1\r\na\r\nx\r\n")
    assert (backend.asked[0].told, client.status, client.transport.told) == (["gone"], 400, ["eof"])
    assert server.rejections == {limits.INVALID: 1}
    assert server.edge.requests == 0


@scenario
async def test_a_wrong_chunk_cuts_off_a_response_that_has_begun() -> None:
    _, backend, client = connected()
    client.says(CHUNKED)
    backend.asked[0].client.respond(200, [], b"he", more=True)
    client.says(b"x\r\n")
    assert (backend.asked[0].told, client.body, client.transport.told) == (["gone"], b"2\r\nhe\r\n", ["close"])


@scenario
async def test_a_wrong_body_of_a_request_that_waits_is_a_400_of_its_own() -> None:
    _, backend, client = connected()
    client.says(GET + CHUNKED + b"x\r\n")
    backend.asked[0].answer()
    client.hears()
    await settled()
    assert (len(backend.asked), client.status, client.transport.told) == (1, 400, ["eof"])


@pytest.mark.parametrize(("begin", "part"), [(b"1;", b"x" * 4000), (b"0\r\n", b"a: b\r\n" * 700)])
@scenario
async def test_chunk_extensions_and_trailers_are_not_read_without_end(begin: bytes, part: bytes) -> None:
    server, backend, client = connected(header_bytes=10_000)
    client.says(CHUNKED, begin, *[part] * 3)
    assert (backend.asked[0].told, client.status, client.transport.told) == (["gone"], 431, ["eof"])
    assert server.edge.unfinished_bytes == 0


@scenario
async def test_trailers_have_the_time_of_a_head() -> None:
    server, backend, client = connected()
    client.says(CHUNKED, b"0\r\n", b"a: ")
    server.passes(server.edge.header, 10)
    assert (backend.asked[0].told, client.status, client.transport.told) == (["gone"], 408, ["eof"])


@scenario
async def test_the_end_of_a_chunk_may_come_alone_and_the_next_one_much_later() -> None:
    server, backend, client = connected()
    client.says(CHUNKED, b"1\r\na", b"\r\n")
    server.passes(server.edge.header, 1000)
    assert (backend.asked[0].told, client.is_ended) == ([], False)


def answer_and_read(asked: Asked) -> None:
    """Answer a request, and read on, as one does who has not noticed."""
    asked.answer()
    asked.client.want()


@scenario
async def test_who_reads_on_behind_its_answer_is_given_nothing() -> None:
    _, backend, client = connected(answer_and_read)
    client.says(post(100_000))
    client.says(bytes(10))
    await settled()
    assert backend.asked[0].parts == []
