"""How an HTTP connection ends: its client leaves, closes its side, or stops reading; its server stops."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from asgictl.interface import limits as bounds
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import GET, Asked, Backend, Client, Server, connected, hello, post

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def begin(asked: Asked) -> None:
    asked.client.respond(200, [], b"he", more=True)


STATES: dict[str, tuple[Callable[[Asked], None], bytes]] = {
    "waiting": (lambda _asked: None, GET),
    "reading": (lambda asked: asked.client.want(), post(100_000)),
    "unread": (lambda _asked: None, post(100_000) + bytes(70_000)),
    "answering": (begin, GET),
    "pipelined": (lambda _asked: None, GET * 3),
}


@pytest.mark.parametrize("state", STATES)
@scenario
async def test_who_serves_a_request_hears_once_that_its_client_has_left(state: str) -> None:
    answers, data = STATES[state]
    server, backend, client = connected(answers)
    client.says(data)
    before = client.hears()
    client.leaves()
    await settled()
    assert [asked.told for asked in backend.asked] == [["gone"]]
    assert (server.edge.requests, server.state.connections) == (0, set())
    (asked,) = backend.asked
    asked.client.respond(200, [], b"late", more=True)  # nothing is written, nor fails
    asked.client.write(b"later", more=False)
    asked.client.abort()
    assert (client.hears(), before == b"") == (b"", state != "answering")


@pytest.mark.parametrize("data", [b"", b"GET /", post(10), post(3) + b"a", GET + b"GET"])
@scenario
async def test_a_client_may_leave_at_any_time(data: bytes) -> None:
    server, backend, client = connected(hello)
    client.says(data)
    client.leaves()
    await settled()
    assert [asked.told for asked in backend.asked] == [[]] * data.startswith(GET)
    assert (server.edge.unfinished_bytes, server.edge.requests) == (0, 0)
    assert server.edge.header.oldest() is None
    assert server.edge.keep_alive.oldest() is None
    assert server.edge.first_byte.oldest() is None


@scenario
async def test_a_small_body_that_was_waited_for_is_not_served_without_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "GRACE_SECONDS", 0.0)
    _, backend, client = connected()
    client.says(post(3))
    client.leaves()
    await settled()
    assert backend.asked == []


@scenario
async def test_a_wrong_response_ends_whoever_serves_the_request() -> None:
    _, backend, client = connected()
    client.says(GET)
    backend.asked[0].client.respond(200, [(b"content-length", b"3")], b"hello", more=True)
    await settled()
    assert (client.transport.told, backend.asked[0].told) == (["close"], ["gone"])


# A client that closes its side (RFC 9112, section 9.6).


@scenario
async def test_a_client_that_sends_nothing_more_still_hears_its_answer() -> None:
    _, backend, client = connected()
    client.says(GET)
    assert client.protocol.eof_received() is True
    backend.asked[0].answer()
    assert (client.status, client.transport.told) == (200, ["eof"])


@scenario
async def test_it_may_wait_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HALF_CLOSED_SECONDS", 0.0)
    _, backend, client = connected()
    client.says(GET)
    assert client.protocol.eof_received() is True
    await settled()
    assert (client.transport.told, backend.asked[0].told) == (["close"], ["gone"])


@scenario
async def test_all_that_it_has_asked_is_answered() -> None:
    _, backend, client = connected()
    client.says(GET * 2)
    assert client.protocol.eof_received() is True
    for number in range(2):
        backend.asked[number].answer()
        await settled()
    assert client.transport.data.count(b"200 OK") == 2
    assert client.transport.told == ["eof"]


@pytest.mark.parametrize("data", [b"", b"GET", post(3) + b"a", CHUNKED])
@scenario
async def test_a_client_that_leaves_a_request_unfinished_is_closed(data: bytes) -> None:
    _, _, client = connected()
    client.says(data)
    assert not client.protocol.eof_received()


@scenario
async def test_tls_has_no_half_closed_connection() -> None:
    server = Server(Backend())
    client = server.connect(is_secure=True)
    client.says(GET)
    assert not client.protocol.eof_received()


@scenario
async def test_a_client_that_leaves_while_its_upload_waits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read does not tell of its end; on a real socket."""
    monkeypatch.setattr(bounds, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(bounds, "ALL_READ_AHEAD_BYTES", 0)
    backend = Backend()
    server = Server(backend)
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)

        await loop.connect_accepted_socket(server.protocol, ours)
        await loop.sock_sendall(theirs, post(10 << 20) + bytes(100_000))
        while not server.edge.held:  # noqa: ASYNC110 - within the scenario's deadline
            await asyncio.sleep(0)
        assert backend.asked[0].told == []
    while not backend.asked[0].told:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert backend.asked[0].told == ["gone"]
    assert server.edge.held == set()


# A client that does not read.


@scenario
async def test_who_writes_knows_whether_its_client_reads() -> None:
    _, backend, client = connected(begin)
    client.says(GET)
    (asked,) = backend.asked
    client.stops_reading()
    assert not asked.client.is_paused  # the transport writes at the turn's end
    await settled()
    assert (asked.client.is_paused, asked.told) == (True, [])
    client.reads_again()
    assert (asked.client.is_paused, asked.told) == (False, ["resumed"])


@scenario
async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    server, backend, client = connected(begin)
    client.says(GET)
    client.stops_reading(100)
    await settled()
    client.transport.waiting = 99
    server.passes(server.edge.stalled, bounds.STALLED_SECONDS)
    assert not client.is_ended
    server.passes(server.edge.stalled, bounds.STALLED_SECONDS)
    await settled()
    assert (client.transport.told, backend.asked[0].told) == (["abort"], ["gone"])
    assert server.rejections == {bounds.STALLED: 1}


@scenario
async def test_a_client_that_reads_again_has_all_its_time_again() -> None:
    server, _, client = connected(begin)
    client.says(GET)
    client.stops_reading()
    await settled()
    client.reads_again()
    server.passes(server.edge.stalled, 1000)
    assert not client.is_ended


# A server that drains.


async def stopped(data: bytes, answers: Callable[[Asked], None] = lambda _asked: None) -> tuple[Server, Client]:
    """Return a server that drains, and a client that has said this before."""
    server, _, client = connected(answers)
    client.says(data)
    client.hears()
    server.drains()
    await settled()
    assert not client.is_ended
    return server, client


@pytest.mark.parametrize("before", [b"", b"GET", GET])
@scenario
async def test_the_next_request_of_an_idle_connection_is_its_last(before: bytes) -> None:
    server, client = await stopped(before, hello)
    client.says(GET.removeprefix(before))
    client.says(GET if before == GET else b"")
    assert (client.status, client.transport.told, len(server.backend.asked)) == (200, ["eof"], 1 + (before == GET))
    assert b"connection: close\r\n" in client.hears()


@scenario
async def test_an_idle_connection_keeps_what_is_left_of_its_time() -> None:
    server, client = await stopped(GET, hello)
    server.passes(server.edge.keep_alive, server.config.timeout_keep_alive - 1)
    assert not client.is_ended
    server.passes(server.edge.keep_alive, server.config.timeout_keep_alive + 1)
    assert client.transport.told == ["close"]


@scenario
async def test_a_connection_that_comes_late_is_served_and_closed() -> None:
    server, _ = await stopped(GET, hello)
    late = server.connect()
    server.drains()
    late.says(GET)
    assert (late.status, late.transport.told) == (200, ["eof"])
    assert b"connection: close\r\n" in late.hears()


@scenario
async def test_a_connection_whose_time_exceeds_the_drain_is_closed_in_time() -> None:
    server = Server(Backend(hello, drain_seconds=0.03), timeout_keep_alive=600)
    client, silent = server.connect(), server.connect()
    client.says(GET)
    server.drains()
    while not (client.is_ended and silent.is_ended):  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)


@scenario
async def test_a_server_that_stops_waits_for_handshakes_of_tls() -> None:
    server = Server(Backend())
    server.config.ssl_certfile = "cert.pem"
    server.connect(is_secure=True)
    failing: Any = server.protocol()  # nobody is told that it has failed
    assert failing in server.state.connections
    server.passes(server.edge.arriving, server.backend.limits.first_byte_seconds)
    assert len(server.state.connections) == 1


@pytest.mark.parametrize("data", [GET, post(100_000), GET * 2])
@scenario
async def test_a_request_that_is_under_way_is_answered_first(data: bytes) -> None:
    server, client = await stopped(data)
    backend = server.backend
    assert backend.asked[0].told == []
    backend.asked[0].answer()
    await settled()
    assert (client.status, client.transport.told, len(backend.asked)) == (200, ["eof"], 1)
    assert b"connection: close\r\n" in client.hears()


@scenario
async def test_so_is_one_that_waits_for_its_body() -> None:
    server, client = await stopped(post(3) + b"a", hello)
    client.says(b"bc")
    assert (server.backend.asked[0].body, client.status, client.transport.told) == (b"abc", 200, ["eof"])


@scenario
async def test_a_response_that_has_begun_is_completed_and_the_next_closes() -> None:
    server, client = await stopped(GET, begin)
    server.backend.asked[0].client.write(b"llo", more=False)
    assert (client.hears(), client.is_ended) == (b"3\r\nllo\r\n0\r\n\r\n", False)
    server.backend.answers = hello  # its client had no word of the end, and may have sent another request
    client.says(GET)
    assert client.transport.told == ["eof"]
    assert b"connection: close\r\n" in client.hears()


@scenario
async def test_tasks_that_serve_requests_are_known_to_the_server() -> None:
    going = asyncio.Event()

    async def serve() -> None:
        await going.wait()

    server, _, client = connected(lambda asked: asked.client.run_task(serve()))
    client.says(GET)
    assert len(server.state.tasks) == 1
    going.set()
    await settled()
    assert server.state.tasks == set()
