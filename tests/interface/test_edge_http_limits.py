"""What a client may cost an HTTP connection: bytes and fields of heads, time, requests at once, connections."""

import pytest

from asgictl.config import Limits
from asgictl.interface import limits as bounds
from asgictl.interface.limits import SLICE_BYTES
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import GET, HANDSHAKE, HOST, Backend, Server, connected, hello, post

BEGIN = b"GET / HTTP/1.1\r\nHost: a\r\n"
TOO_LARGE = b"The headers are too large, or too many.\n"


@pytest.mark.parametrize("begin", [b"", BEGIN + b"a: "])
@scenario
async def test_a_head_is_not_read_without_end(begin: bytes) -> None:
    server, backend, client = connected(hello)
    part = (b"x" if begin else b"\r\n") * SLICE_BYTES
    client.says(begin, *[part] * (Limits().header_bytes // SLICE_BYTES + 1))
    assert (client.status, client.body, backend.asked) == (431, TOO_LARGE, [])
    assert client.transport.told == ["eof"]
    assert server.rejections == {bounds.HEADERS_REFUSED: 1}
    assert server.edge.unfinished_bytes == 0


@pytest.mark.parametrize(("size", "status"), [(5000, 200), (5001, 431)])
@pytest.mark.parametrize("cut", [1, 4000])
@scenario
async def test_a_head_has_so_many_bytes_at_most(cut: int, size: int, status: int) -> None:
    head = BEGIN + b"a: b\r\n" * 100
    head = head.replace(b"GET /", b"GET /" + b"x" * (size - len(head) + len(b"GET  HTTP/1.1\r\n")))
    _, _, client = connected(hello, header_bytes=5000, header_fields=200)
    client.says(head[:cut], head[cut:] + b"\r\n")
    assert client.status == status


@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 431)])
@scenario
async def test_a_field_has_so_many_bytes_at_most(size: int, status: int) -> None:
    _, _, client = connected(hello, header_field_bytes=10)
    client.says(BEGIN + b"x: " + b"x" * size + b"\r\n\r\n")
    assert (client.status, client.is_ended) == (status, status == 431)


@pytest.mark.parametrize(("count", "status"), [(10, 200), (11, 431)])
@scenario
async def test_a_head_has_so_many_fields_at_most(count: int, status: int) -> None:
    _, _, client = connected(hello, header_fields=10)
    client.says(BEGIN + b"x: x\r\n" * (count - 1) + b"\r\n")
    assert (client.status, client.is_ended) == (status, status == 431)


@scenario
async def test_a_handshake_s_head_is_limited_too() -> None:
    _, backend, client = connected(header_fields=5)
    client.says(HANDSHAKE.replace(HOST, HOST + b"x: x\r\n") + b"\x81\x81\0\0\0\0x")
    await settled()
    assert (client.status, backend.opened, client.transport.told) == (431, [], ["eof"])


@scenario
async def test_when_all_unfinished_heads_are_too_large_the_oldest_is_refused() -> None:
    backend = Backend(hello, unfinished_header_bytes=100)
    server = Server(backend)
    clients = [server.connect() for _ in range(4)]
    for client in clients[:3]:
        client.says(b"GET /" + b"x" * 25)
    assert (server.edge.unfinished_bytes, [client.status for client in clients]) == (90, [0] * 4)
    clients[3].says(b"GET /" + b"x" * 15)
    assert [client.status for client in clients] == [431, 0, 0, 0]
    assert server.edge.unfinished_bytes == 80
    assert server.rejections == {bounds.HEADERS_CROWDED: 1}
    clients[1].leaves()
    clients[2].says(b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (clients[2].status, server.edge.unfinished_bytes) == (200, 20)


# Time.


@scenario
async def test_a_silent_client_is_closed() -> None:
    server, _, client = connected()
    server.passes(server.edge.first_byte, 9.9)
    assert not client.is_ended
    server.passes(server.edge.first_byte, 10)
    assert (client.transport.told, client.hears()) == (["close"], b"")
    assert server.rejections == {bounds.SILENT: 1}


@pytest.mark.parametrize("data", [b"G", b"\r\n", BEGIN, HANDSHAKE[:-2]])
@scenario
async def test_a_head_has_so_much_time_from_its_first_byte_on(data: bytes) -> None:
    server, _, client = connected(hello)
    client.says(data)
    server.passes(server.edge.first_byte, 10)
    server.passes(server.edge.header, 9.9)
    client.says(data[:0])
    assert not client.is_ended
    server.passes(server.edge.header, 10)
    assert (client.status, client.body) == (408, b"The headers were not received in time.\n")
    assert client.transport.told == ["eof"]
    assert server.rejections == {bounds.HEADERS_LATE: 1}
    client.says(GET)
    assert client.hears().count(b"HTTP/1.1") == 1


@scenario
async def test_more_of_a_head_gives_it_no_more_time() -> None:
    server, _, client = connected(hello)
    client.says(b"G")
    due = dict(server.edge.header._due)
    for part in (b"E", b"T /", b" HTTP/1.1\r\nA: b"):
        client.says(part)
    assert due
    assert server.edge.header._due == due


@scenario
async def test_a_head_behind_a_request_has_no_more_time() -> None:
    server, backend, client = connected()
    client.says(GET + b"GET /")
    server.passes(server.edge.header, 10)
    assert client.hears() == b""
    backend.asked[0].answer()
    client.hears()
    await settled()
    assert (client.status, client.transport.told) == (408, ["eof"])


@scenario
async def test_a_connection_is_kept_for_so_long() -> None:
    backend = Backend(hello)
    server = Server(backend, timeout_keep_alive=7)
    client = server.connect()
    client.says(GET)
    server.passes(server.edge.first_byte, 1000)
    server.passes(server.edge.keep_alive, 6.9)
    client.says(GET[:10])
    server.passes(server.edge.keep_alive, 1000)
    client.says(GET[10:])
    assert client.transport.data.count(b"200 OK") == 2
    assert not client.is_ended
    server.passes(server.edge.keep_alive, 7)
    assert client.transport.told == ["close"]
    assert server.rejections == {}


@scenario
async def test_no_time_runs_while_a_request_is_under_way() -> None:
    server, backend, client = connected()
    client.says(GET)
    for deadlines in (server.edge.first_byte, server.edge.header, server.edge.keep_alive, server.edge.linger):
        server.passes(deadlines, 1000)
    assert not client.is_ended
    backend.asked[0].answer()
    assert client.status == 200


@scenario
async def test_nor_while_a_body_is_on_its_way() -> None:
    server, _, client = connected(lambda asked: asked.read())
    client.says(post(100_000), b"a")
    for deadlines in (server.edge.first_byte, server.edge.header, server.edge.keep_alive):
        server.passes(deadlines, 1000)
    assert not client.is_ended


@scenario
async def test_time_that_has_run_out_is_seen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TICK_SECONDS", 0.001)
    _, _, client = connected(header_seconds=0.0)
    client.says(b"G")
    while not client.is_ended:
        await settled()
    assert client.status == 408


# How many.


@scenario
async def test_more_requests_at_once_than_uvicorn_is_told_are_refused() -> None:
    backend = Backend()
    server = Server(backend, limit_concurrency=2)
    clients = [server.connect() for _ in range(4)]
    for client in clients[:3]:
        client.says(GET)
    assert [client.status for client in clients] == [0, 0, 503, 0]
    assert (clients[2].body, clients[2].transport.told) == (b"Too many requests are waiting.\n", ["eof"])
    assert server.rejections == {bounds.CONCURRENCY: 1}
    backend.asked[0].answer()
    clients[1].leaves()
    for client in (clients[0], clients[3]):
        client.says(GET)
    assert (len(backend.asked), server.edge.requests) == (4, 2)


@scenario
async def test_idle_connections_are_no_requests() -> None:
    backend = Backend(hello)
    server = Server(backend, limit_concurrency=1)
    idle = server.connect()
    idle.says(GET)
    client = server.connect()
    client.says(GET)
    assert (idle.status, client.status) == (200, 200)


@scenario
async def test_where_files_run_out_the_oldest_idle_connection_is_closed() -> None:
    backend = Backend(hello)
    server = Server(backend)
    kept = [server.connect() for _ in range(2)]
    for client in kept:
        client.says(GET)
    server.edge.capacity = 2
    new = [server.connect() for _ in range(2)]  # in one turn of the loop
    assert [client.transport.told for client in kept + new] == [["close"], ["close"], [], []]
    await settled()
    assert server.rejections == {bounds.TOO_MANY_FILES: 2}
    new[0].says(GET)
    assert new[0].status == 200


@scenario
async def test_where_none_is_idle_a_new_connection_is_refused() -> None:
    backend = Backend()
    server = Server(backend)
    busy = server.connect()
    busy.says(GET)
    server.edge.capacity = 1
    client = server.connect()
    client.says(GET)
    assert (client.status, client.body) == (503, b"Too many connections are open.\n")
    assert (client.transport.told, len(backend.asked)) == (["eof"], 1)
    assert server.rejections == {bounds.TOO_MANY_FILES: 1}
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    await settled()
    assert server.state.connections == {busy.protocol}
