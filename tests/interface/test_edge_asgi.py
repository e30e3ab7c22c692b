"""The edge behind a server that speaks ASGI: what it writes, and its requests."""

import asyncio
from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.interface.edge_asgi import Aborted, Writer, can_deny, denial
from asgictl.wire.messages import Close, Scope
from tests.conftest import scenario
from tests.interface.asgi_server import DENIAL, ASGIMessage, Backend, Client, Server, chunk, connected, requested
from tests.interface.conftest import settled

LEFT = {"type": "http.disconnect"}
INLINE_BYTES = Limits().inline_bytes


class Writing(Server):
    """A Writer and its server. told: what its owner was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.writer = Writer(self.send, lambda: self.told.append("resumed"), lambda: self.told.append("failed"))

    def puts(self, *names: str) -> None:
        for name in names:
            self.writer.put({"type": f"test.{name}"}, len(name))


@scenario
async def test_what_the_server_takes_at_once_needs_no_task() -> None:
    server = Writing()
    server.puts("a", "b")
    assert server.types() == ["a", "b"]
    assert (server.writer.is_writing, server.writer.bytes, server.told) == (False, 0, [])
    assert len(asyncio.all_tasks()) == 1


@scenario
async def test_messages_wait_in_order_and_are_counted_until_they_are_sent() -> None:
    server = Writing()
    server.may_write.clear()
    server.puts("a", "bb", "ccc")
    await settled()
    assert (server.types(), server.writer.is_writing, server.writer.bytes, server.told) == ([], True, 6, [])
    server.may_write.set()
    await server.writer.flush()
    assert (server.types(), server.writer.is_writing, server.writer.bytes) == (["a", "bb", "ccc"], False, 0)
    assert server.told == ["resumed"]
    server.puts("d")
    assert server.types() == ["a", "bb", "ccc", "d"]


@scenario
async def test_a_client_that_has_gone_is_written_nothing_that_waits() -> None:
    server = Writing()
    server.may_write.clear()
    server.puts("a", "b")
    server.error = BrokenPipeError()
    server.may_write.set()
    await server.writer.flush()
    server.error = None
    await settled()
    assert (server.types(), server.writer.bytes, server.told) == ([], 0, ["failed"])
    server.puts("c")
    assert server.types() == ["c"], "what waited is dropped"


@scenario
async def test_a_servers_fault_is_told_and_reaches_nobody_who_writes() -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: faults.append(what["exception"]))
    server = Writing()
    server.error = ValueError("the server's")
    server.puts("a")
    assert (faults, server.told) == ([server.error], ["failed"])


@scenario
async def test_a_write_that_fails_while_it_waits_fails() -> None:
    drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: list[str] = []

    async def send(_message: ASGIMessage) -> None:
        await drained

    writer = Writer(send, lambda: told.append("resumed"), lambda: told.append("failed"))
    writer.put({"type": "test.a"})
    await settled()
    drained.set_exception(ConnectionResetError())
    await writer.flush()
    assert told == ["failed"]


@scenario
async def test_a_write_may_wait_several_times() -> None:
    written: list[str] = []

    async def send(message: ASGIMessage) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        written.append(message["type"])

    writer = Writer(send, lambda: None, lambda: None)
    writer.put({"type": "test.a"})
    writer.put({"type": "test.b"})
    await writer.flush()
    assert written == ["test.a", "test.b"]


@scenario
async def test_what_travels_has_defaults_for_what_a_server_may_leave_out() -> None:
    (scope,) = (await requested(path="/é", headers=[[b"a", b"b"]], client=["h", 1])).backend.scopes
    assert scope == Scope("", "http", "1.1", "", "/é", "/é".encode(), b"", [(b"a", b"b")], ("h", 1), None)
    (scope,) = (await requested(path="/100%41")).backend.scopes
    assert scope.raw_path == b"/100%2541"
    (scope,) = (await connected()).backend.scopes
    assert (scope.method, scope.scheme, scope.client, scope.subprotocols) == ("", "ws", None, [])


@scenario
async def test_what_a_server_knows_travels() -> None:
    known = {"method": "PUT", "scheme": "https", "http_version": "2", "root_path": "/r", "path": "/r/a b"}
    more = {"raw_path": b"/r/a%20b", "query_string": b"q", "client": ["h", 1], "server": ["s", 2]}
    (scope,) = (await requested(**known, **more)).backend.scopes
    assert scope == Scope("PUT", "https", "2", "/r", "/r/a b", b"/r/a%20b", b"q", [], ("h", 1), ("s", 2))
    (scope,) = (await connected(subprotocols=["chat"])).backend.scopes
    assert scope.subprotocols == ["chat"]


@pytest.mark.parametrize(
    ("trusted", "told"), [("10.0.0.1", (("192.0.2.7", 0), "wss")), ("10.0.0.2", (("10.0.0.1", 5), "ws"))]
)
@scenario
async def test_only_a_trusted_proxy_says_who_its_client_is(trusted: str, told: Any) -> None:
    headers = [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")]
    (scope,) = (await connected(trusted=trusted, headers=headers, client=["10.0.0.1", 5])).backend.scopes
    assert (scope.client, scope.scheme) == told


@scenario
async def test_what_comes_by_asgi_is_counted_and_the_lifespan_is_the_backends() -> None:
    backend = Backend()
    await requested(backend=backend)
    await connected(backend=backend)
    lifespan = Client("lifespan", backend=backend)
    await lifespan.says({"type": "lifespan.startup"})
    assert (backend.figures.adapted, backend.heard) == (2, [{"type": "lifespan.startup"}])
    assert lifespan.types() == ["startup.complete"]


LENGTH = [(b"content-length", b"10")]
INLINE = [(b"content-length", b"%d" % INLINE_BYTES)]
LARGE = [(b"content-length", b"%d" % (INLINE_BYTES + 1))]
CHUNKED = [(b"transfer-encoding", b"chunked")]
EXPECTING = [(b"expect", b"100-continue")]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [(b"content-length", b"0"), *EXPECTING]])
@scenario
async def test_a_request_without_a_body_is_not_waited_for(headers: list[tuple[bytes, bytes]]) -> None:
    assert (await requested(headers=headers)).backend.bodies == [(b"", 0, False)]


@scenario
async def test_a_small_body_goes_with_its_request_however_slowly_it_comes() -> None:
    client = await requested(chunk(b"12345", more=True), headers=LENGTH)
    assert client.backend.bodies == []
    await client.says(chunk(b"67890", more=False))
    assert client.backend.bodies == [(b"1234567890", 10, False)]


@scenario
async def test_a_body_of_64_kib_still_goes_with_its_request() -> None:
    client = await requested(chunk(b"x" * INLINE_BYTES, more=False), headers=INLINE)
    assert client.backend.bodies == [(b"x" * INLINE_BYTES, INLINE_BYTES, False)]


@pytest.mark.parametrize(
    ("headers", "length"),
    [(LARGE, INLINE_BYTES + 1), (CHUNKED, -1), (LENGTH + EXPECTING, 10), (CHUNKED + EXPECTING, -1)],
)
@scenario
async def test_a_body_that_is_large_of_unknown_size_or_asked_about_is_not_read_before_it_is_asked_for(
    headers: list[tuple[bytes, bytes]], length: int
) -> None:
    client = await requested(chunk(b"a", more=True), headers=headers)
    assert client.backend.bodies == [(b"", length, True)]
    assert (client.incoming.qsize(), client.heard) == (1, [])


@scenario
async def test_a_client_that_leaves_within_a_small_body_is_no_request() -> None:
    client = await requested(chunk(b"12345", more=True), LEFT, headers=LENGTH)
    assert client.running.done()
    assert (client.backend.bodies, client.sent) == ([], [])


@scenario
async def test_a_small_body_that_does_not_come_in_time_is_a_408_and_counted() -> None:
    client = Client(backend=Backend(http_deadline_seconds=0), headers=LENGTH)
    client.may_write.clear()
    await settled()
    assert not client.running.done(), "it is not sent yet"
    client.may_write.set()
    await client.running
    assert client.sent[0]["status"] == 408
    assert client.backend.bodies == []
    assert client.backend.rejections.snapshot() == {"requests answered 408: The body was not received in time.": 1}


@scenario
async def test_a_part_of_a_body_is_handed_on_for_each_time_that_it_is_asked_for() -> None:
    client = await requested(*[chunk(each, more=True) for each in (b"a", b"", b"b", b"c")], headers=CHUNKED)
    client.backend.request.want()
    await settled()
    assert client.heard == [(b"a", True)]
    client.backend.request.want()
    await settled()
    assert client.heard == [(b"a", True), (b"b", True)], "an empty part is none"
    client.backend.request.want()
    await client.says(chunk(b"", more=False))
    client.backend.request.want()
    await client.says(LEFT)
    assert client.heard == [(b"a", True), (b"b", True), (b"c", True), (b"", False), "gone"]


@scenario
async def test_a_response_is_sent_as_it_is_written() -> None:
    client = await requested()
    client.backend.request.respond(201, [(b"a", b"b")], b"one", more=True)
    client.backend.request.write(b"two", more=False)
    assert client.sent == [
        {"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]},
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two", "more_body": False},
    ]
    await client.running
    assert client.heard == []


@scenario
async def test_a_response_to_a_slow_client_waits_and_is_all_sent_before_the_request_ends() -> None:
    client = await requested()
    request = client.backend.request
    client.may_write.clear()
    request.respond(200, [], b"a", more=True)
    assert request.is_paused
    client.may_write.set()
    await settled()
    assert (request.is_paused, client.heard) == (False, ["resumed"])
    client.may_write.clear()
    request.write(b"b", more=False)
    await settled()
    assert not client.running.done()
    client.may_write.set()
    await client.running
    assert [message.get("body") for message in client.sent] == [None, b"a", b"b"]


@scenario
async def test_a_response_is_cut_off_behind_what_was_written() -> None:
    client = await requested()
    client.may_write.clear()
    client.backend.request.respond(200, [], b"a", more=True)
    client.backend.request.abort()
    await settled()
    client.may_write.set()
    with pytest.raises(Aborted):
        await client.running
    assert client.types() == ["response.start", "response.body"]


@pytest.mark.parametrize("begun", [False, True])
@scenario
async def test_a_client_that_leaves_is_gone_once_and_written_nothing_more(begun: bool) -> None:
    client = await requested()
    request = client.backend.request
    if begun:
        request.respond(200, [], b"a", more=True)
    await client.says(chunk(b"", more=False), LEFT)
    assert client.running.done()
    assert client.heard == ["gone"]
    before = list(client.sent)
    if not begun:
        request.respond(502, [], b"", more=False)
    request.write(b"late", more=False)
    request.abort()
    assert (client.sent, client.heard) == (before, ["gone"])


@scenario
async def test_a_server_that_cannot_write_has_lost_the_client() -> None:
    client = await requested()
    client.error = BrokenPipeError()
    client.backend.request.respond(200, [], b"a", more=True)
    await client.running
    assert client.heard == ["gone"]


@scenario
async def test_a_client_that_leaves_behind_its_response_is_not_gone() -> None:
    client = await requested()
    client.backend.request.respond(200, [], b"a", more=False)
    await client.says(LEFT)
    assert (client.running.done(), client.heard) == (True, [])


@scenario
async def test_a_request_that_its_server_cancels_is_gone() -> None:
    client = await requested()
    client.running.cancel()
    await settled()
    assert (client.running.cancelled(), client.heard) == (True, ["gone"])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@scenario
async def test_a_server_waits_for_what_serves_a_client_that_has_left(kind: str) -> None:
    client, ending = Client(kind), asyncio.Event()
    await settled()

    async def serve() -> None:
        await ending.wait()

    (client.backend.request if kind == "http" else client.backend.socket).run_task(serve())
    await client.says({"type": f"{kind}.disconnect"})
    assert not client.running.done()
    ending.set()
    await client.running


def test_a_server_that_cannot_deny_refuses_in_its_own_way() -> None:
    assert denial(Close(1000, "", 401), can_deny=False) == [{"type": "websocket.close"}]


@pytest.mark.parametrize(("status", "says_when"), [(403, False), (404, False), (503, True)])
def test_only_503_says_when_to_come_again(status: int, says_when: bool) -> None:
    headers = dict(denial(Close(1000, "", status), can_deny=True)[0]["headers"])
    assert (headers.get(b"retry-after") == b"1") == says_when
    assert headers[b"content-length"] == b"0"


@pytest.mark.parametrize(
    ("scope", "expected"), [({}, False), ({"extensions": {}}, False), ({"extensions": DENIAL}, True)]
)
def test_whether_a_server_can_deny_is_told_by_its_scope(scope: dict[str, Any], expected: bool) -> None:
    assert can_deny(scope) is expected
