"""The bytes of one request under credit, with a client that a test writes."""

import io
from typing import Any

import pytest

from asgictl.layers.base import Entry
from asgictl.wire.messages import WINDOW_BYTES, Chunk, Credit, Gone, Request, Response, WorkerMessage
from asgictl.worker import sync_body as module
from asgictl.worker.response import ClientDisconnected
from asgictl.worker.sync_body import STALL_SECONDS, LayerFlow
from asgictl.worker.wsgi import Body
from tests.worker.conftest import Client, flow_of, scope

QUARTER = WINDOW_BYTES // 4
REQUEST = Request("i/1", 1, scope("POST"), b"", more=True, credit=10)


def chunk(sequence: int, data: bytes = b"x", *, more: bool = True, entry: bytes = b"5-0") -> Chunk:
    return Chunk("i/1", entry, sequence + 1, data, more)


def part(body: bytes) -> Response:
    return Response("i/1", 0, 200, [], body, more=True)


def pulled(*script: list[WorkerMessage]) -> tuple[Client, list[bytes]]:
    """Read a body to its end."""
    client = Client(*script)
    flow = flow_of(client, REQUEST)
    return client, list(iter(flow.pull, b""))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client that sends nothing by itself, and for whom time passes while it is waited for."""
    client = Client(*[[]] * 1000)
    monkeypatch.setattr(module, "monotonic", lambda: client.waited)
    return client


def test_a_body_is_asked_for_first_by_a_window_and_then_by_halves() -> None:
    data = b"x" * QUARTER
    chunks: list[list[WorkerMessage]] = [[chunk(number, data, more=number < 7)] for number in range(8)]
    client, body = pulled(*chunks)
    assert body == [data] * 8
    assert client.wanted == [WINDOW_BYTES, *[WINDOW_BYTES // 2] * 3]


def test_a_body_without_bytes_is_at_its_end_without_asking() -> None:
    client = Client()
    flow = flow_of(client, Request("i/1", 1, scope(), b""))
    assert (flow.pull(), client.sent) == (b"", [])


def test_after_its_end_nothing_is_asked_for() -> None:
    client = Client([chunk(0, more=False)])
    flow = flow_of(client, REQUEST)
    assert [flow.pull() for _ in range(3)] == [b"x", b"", b""]
    assert len(client.sent) == 1


def test_chunks_that_come_together_are_handed_out_one_by_one_and_empty_ones_are_not_an_end() -> None:
    _, body = pulled([chunk(0, b"a"), chunk(1, b""), chunk(2, b"b"), chunk(3, b"", more=False)])
    assert body == [b"a", b"b"]


def test_a_repeated_chunk_is_dropped() -> None:
    _, body = pulled([chunk(0, b"a")], [chunk(0, b"a"), chunk(1, b"b", more=False)])
    assert body == [b"a", b"b"]


def test_a_gap_is_an_error_and_not_a_shorter_body() -> None:
    with pytest.raises(ConnectionResetError, match="was lost"):
        pulled([chunk(0)], [chunk(2)])


def test_letters_of_another_sending_or_request_are_passed_over() -> None:
    other = Chunk("i/2", b"5-0", 0, b"theirs", True)
    _, body = pulled([chunk(0, b"old", entry=b"4-0"), Gone("i/1", b"4-0"), other], [chunk(0, b"own", more=False)])
    assert body == [b"own"]


@pytest.mark.parametrize("is_there", [True, False], ids=["its client has gone", "its interface has gone"])
def test_when_nobody_waits_any_more_reading_and_writing_is_an_oserror(is_there: bool) -> None:
    for use in (LayerFlow.pull, lambda flow: flow.push(part(b"x"))):
        client = Client([Gone("i/1", b"5-0")] if is_there else [])
        client.is_there = is_there
        with pytest.raises(ClientDisconnected) as caught:
            use(flow_of(client, REQUEST))
        assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("use", [LayerFlow.pull, lambda flow: flow.push(part(b"x" * 10))], ids=["reading", "writing"])
def test_a_client_that_stalls_is_a_timeout(use: Any, clock: Client) -> None:
    with pytest.raises(TimeoutError, match="the client"):
        use(flow_of(clock, REQUEST))
    assert clock.waited == pytest.approx(STALL_SECONDS, abs=2)
    assert len(clock.sent) == 1


def test_a_client_that_is_slow_is_no_timeout_while_it_takes_something(clock: Client) -> None:
    clock.script.clear()
    for number in (1, 2, 3):
        clock.script.extend([*[[]] * 50, [Credit("i/1", b"5-0", 1, number)]])
    flow_of(clock, REQUEST).push(part(b"x" * 12))
    assert clock.waited > 2 * STALL_SECONDS


def test_a_part_within_the_credit_is_not_waited_for_and_one_that_uses_it_up_is() -> None:
    client = Client([], [], [], [Credit("i/1", b"5-0", 4, 1)], [Credit("i/1", b"5-0", 6, 2)])
    flow = flow_of(client, REQUEST)
    flow.push(part(b"x" * 6))
    assert (client.waited, flow.credit) == (0, 4)
    flow.push(part(b"x" * 4))
    assert (client.waited, flow.credit) == (2, 4)
    assert len(client.sent) == 2


def test_waiting_for_the_client_is_told_to_whoever_watches_the_handler() -> None:
    told: list[float] = []
    client = Client([], [], [chunk(0)])
    layer: Any = client
    LayerFlow(Entry(b"ch", b"5-0", REQUEST), REQUEST, layer, lambda: told.append(client.waited)).pull()
    assert told == [1, 2, 3, 3]


def test_a_body_is_a_file_and_nothing_is_asked_of_the_client_before_the_first_read() -> None:
    client = Client([chunk(0, b"first\nsec")], [chunk(1, b"ond\nthird", more=False)])
    body = io.BufferedReader(Body(flow_of(client, REQUEST)), 4)
    assert client.sent == []
    assert body.readline() == b"first\n"
    assert len(client.script) == 1, "no more than is needed"
    assert list(body) == [b"second\n", b"third"]
    assert body.read() == b""


def test_an_error_of_the_flow_reaches_who_reads_the_file() -> None:
    body = io.BufferedReader(Body(flow_of(Client([chunk(0)], [Gone("i/1", b"5-0")]), REQUEST)), 4)
    with pytest.raises(ClientDisconnected):
        body.read()
