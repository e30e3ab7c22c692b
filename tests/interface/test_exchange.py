"""One HTTP request on its way, without a server."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from asgictl.interface.exchange import Aborted, BodyTooLarge, Exchange, error_response, read_body
from asgictl.messages import Response

OK = [(b"content-type", b"text/plain")]


def part(sequence: int, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
    return Response("i/1", sequence, 200, [] if sequence else OK, body, more, aborted)


def written(*parts: Response) -> list[MutableMapping[str, Any]]:
    """Return what a server is sent when these parts arrive one after another."""
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def run() -> None:
        exchange = Exchange(0)
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


def test_a_part_leaves_before_the_next_one_comes() -> None:
    async def run() -> None:
        sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        exchange = Exchange(0)
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
    exchange = Exchange(5.0)
    exchange.put(part(1, b"not yet"))
    assert exchange.deadline == 5.0
    exchange.put(part(0, b"a", more=True))
    assert exchange.deadline == float("inf")


def test_a_failure_answers_once_and_never_after_the_application_has() -> None:
    async def run() -> None:
        exchange = Exchange(0)
        exchange.fail("i/1", 504, "Late.")
        exchange.put(part(0, b"later still"))
        assert (await exchange.get()).status == 504
        begun = Exchange(0)
        begun.put(part(0, b"a"))
        begun.fail("i/1", 504, "Late.")
        assert (await begun.get()).status == 200
        assert not begun._parts

    asyncio.run(run())


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
