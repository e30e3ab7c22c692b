"""One HTTP request on its way, without a server."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.interface.exchange import Aborted, BodyTooLarge, Exchange, error_response, read_body
from asgictl.messages import Request, Response, Scope

SCOPE = Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None)
OK = [(b"content-type", b"text/plain")]


def part(sequence: int, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
    return Response("i/1", sequence, 200, [] if sequence else OK, body, more, aborted)


def exchange_of(method: str = "GET", deadline: float = 0) -> Exchange:
    return Exchange("i/1", replace(SCOPE, method=method), deadline)


def written(*parts: Response) -> list[MutableMapping[str, Any]]:
    """Return what a server is sent when these parts arrive one after another."""
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def run() -> None:
        exchange = exchange_of()
        writing = asyncio.create_task(exchange.write(send))
        for each in parts:
            await asyncio.sleep(0)
            exchange.put(each)
        await asyncio.wait_for(writing, 10)

    asyncio.run(run())
    return messages


def test_a_whole_response_is_a_start_and_one_body() -> None:
    assert written(part(0, b"hello")) == [
        {"type": "http.response.start", "status": 200, "headers": OK},
        {"type": "http.response.body", "body": b"hello"},
    ]


def test_parts_are_written_in_sequence_and_a_repeated_one_is_dropped() -> None:
    messages = written(part(0, b"a", more=True), part(0, b"a", more=True), part(1, b"b", more=True), part(2, b"c"))
    assert [message["body"] for message in messages[1:]] == [b"a", b"b", b"c"]


def test_what_comes_of_an_attempt_that_was_given_up_is_dropped() -> None:
    exchange = exchange_of()
    exchange.lost(True)  # its worker stood still for long, and wakes up while another runs the second attempt
    for number in (0, 1):
        exchange.put(part(number, b"first", more=True))
        exchange.put(replace(part(number, b"second", more=not number), attempt=2))
    assert [each.body for each in exchange._parts] == [b"second", b"second"]


def test_of_two_sendings_the_one_that_begins_first_is_the_response() -> None:
    exchange = exchange_of()
    for number in (0, 1):
        for entry in (b"1-0", b"2-0") if number == 0 else (b"2-0", b"1-0"):
            exchange.put(replace(part(number, entry, more=not number), entry=entry))
    assert [each.body for each in exchange._parts] == [b"1-0", b"1-0"]


def test_a_part_leaves_before_the_next_one_comes() -> None:
    async def run() -> None:
        sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        exchange = exchange_of()
        writing = asyncio.create_task(exchange.write(sent.put))
        exchange.put(part(0, b"a", more=True))
        await sent.get()
        assert await sent.get() == {"type": "http.response.body", "body": b"a", "more_body": True}
        exchange.put(part(1, b"b"))
        await writing

    asyncio.run(run())


def test_a_response_that_failed_on_the_way_is_cut_off() -> None:
    with pytest.raises(Aborted):
        written(part(0, b"a", more=True), part(1, b"", aborted=True))


def test_the_first_part_lifts_the_deadline() -> None:
    exchange = exchange_of(deadline=5.0)
    exchange.put(part(1, b"not yet"))
    assert exchange.deadline == 5.0
    exchange.put(part(0, b"a", more=True))
    assert exchange.deadline == float("inf")


def test_a_failure_answers_once_and_cuts_off_what_the_application_has_begun() -> None:
    async def run() -> None:
        exchange = exchange_of()
        exchange.fail(504, "Late.")
        exchange.put(part(0, b"later still"))
        assert (await exchange.get()).status == 504
        assert not exchange._parts
        begun = exchange_of()
        begun.put(part(0, b"a", more=True))
        begun.fail(504, "Late.")
        assert [(each.sequence, each.aborted) for each in (await begun.get(), await begun.get())] == [
            (0, False),
            (1, True),
        ]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "started", "attempts"),
    [("POST", [False, False], [1, 1]), ("GET", [False, True], [1, 2]), ("GET", [True, False], [2, 2])],
)
def test_a_request_whose_worker_died_is_sent_again(method: str, started: list[bool], attempts: list[int]) -> None:
    exchange = exchange_of(method)
    again = [exchange.lost(each) for each in started]
    assert again == [Request("i/1", attempt, replace(SCOPE, method=method), b"") for attempt in attempts]
    assert not exchange._parts


@pytest.mark.parametrize(("method", "started"), [("POST", [True]), ("GET", [True, True])])
def test_a_request_that_may_not_run_again_is_answered_with_502(method: str, started: list[bool]) -> None:
    exchange = exchange_of(method)
    assert [exchange.lost(each) for each in started][-1] is None
    assert [each.status for each in exchange._parts] == [502]


def test_a_response_that_has_begun_is_cut_off_when_its_worker_died() -> None:
    exchange = exchange_of()
    exchange.put(part(0, b"a", more=True))
    assert exchange.lost(False) is None
    assert [each.aborted for each in exchange._parts] == [False, True]


@pytest.mark.parametrize(("status", "again"), [(503, [b"1"]), (504, []), (404, [])])
def test_an_error_is_plain_text_of_its_length_and_503_says_when_to_try_again(status: int, again: list[bytes]) -> None:
    response = error_response("i/1", status, "No.")
    headers = dict(response.headers)
    assert (response.status, response.body) == (status, b"No.\n")
    assert headers[b"content-length"] == b"4"
    assert [value for name, value in response.headers if name == b"retry-after"] == again


def body_of(headers: list[tuple[bytes, bytes]], messages: list[dict[str, Any]], limit: int = 10) -> bytes:
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(waiting)

    return asyncio.run(read_body({"headers": headers}, receive, limit))


def chunk(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


LENGTH = [(b"content-length", b"10")]
CHUNKED = [(b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
def test_a_request_without_a_body_is_not_waited_for(headers: list[tuple[bytes, bytes]]) -> None:
    assert body_of(headers, []) == b""


@pytest.mark.parametrize("headers", [LENGTH, CHUNKED])
def test_a_body_is_read_to_its_end_and_may_be_as_large_as_the_limit(headers: list[tuple[bytes, bytes]]) -> None:
    assert body_of(headers, [chunk(b"12345", more=True), chunk(b"67890", more=False)]) == b"1234567890"


def test_a_body_that_says_that_it_is_too_large_is_not_read() -> None:
    with pytest.raises(BodyTooLarge):
        body_of(LENGTH, [], limit=9)


def test_a_chunked_body_that_becomes_too_large_is_not_read_on() -> None:
    with pytest.raises(BodyTooLarge):
        body_of(CHUNKED, [chunk(b"12345", more=True), chunk(b"67890", more=True)], limit=9)


def test_a_client_that_leaves_within_its_body_resets_the_connection() -> None:
    with pytest.raises(ConnectionResetError):
        body_of(LENGTH, [chunk(b"12345", more=True), {"type": "http.disconnect"}])
