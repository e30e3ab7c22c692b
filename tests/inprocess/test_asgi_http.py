"""One request of an ASGI application inside the server: its body's limit, its one response, and its end."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asgictl.app.outcome import Depths, Outcome
from asgictl.inprocess.asgi_http import ASGIRequest
from asgictl.telemetry.metrics import CLIENT_GONE
from tests.conftest import scenario
from tests.inprocess.clients import RequestClient, scope_of
from tests.interface.conftest import settled

GONE = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Request(ASGIRequest):
    """One with a body of up to ten bytes, which its client sends in these parts; without any, it has none."""

    def __init__(self, *bodies: bytes, length: int = -1, method: str = "GET") -> None:
        self.client = RequestClient()
        super().__init__(scope_of(method), b"", length, bool(bodies), self.client, 10)
        self.bodies = list(bodies)

    async def reads(self, times: int) -> list[Any]:
        """What the application receives, when its client sends what it is asked for."""
        messages = []
        for _ in range(times):
            receiving = asyncio.ensure_future(self.receive())
            await asyncio.sleep(0)
            if not receiving.done() and self.client.wanted and self.bodies:
                self.client.wanted -= 1
                body = self.bodies.pop(0)
                self.received(body, bool(self.bodies))
            messages.append(await receiving)
        return messages

    async def serves(self, application: Callable[..., Any]) -> None:
        await self.run(application, {}, Outcome(print, Depths([])))


def body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


@scenario
async def test_a_body_that_came_with_its_request_is_received_once() -> None:
    client = RequestClient()
    request = ASGIRequest(scope_of(), b"hello", 5, False, client, 10)
    assert await request.receive() == body(b"hello", more=False)
    waiting = asyncio.ensure_future(request.receive())
    await settled()
    assert (waiting.done(), client.wanted) == (False, 0)
    request.gone()
    assert await waiting == GONE


@scenario
async def test_a_request_without_a_body_receives_an_empty_one() -> None:
    assert await Request().receive() == body(b"", more=False)


@scenario
async def test_a_body_up_to_the_limit_passes_as_it_is() -> None:
    request = Request(b"12345", b"67890", b"")
    expected = [body(b"12345", more=True), body(b"67890", more=True), body(b"", more=False)]
    assert await request.reads(3) == expected
    assert request.client.told == []


@scenario
async def test_a_client_is_asked_for_its_body_only_when_it_is_received() -> None:
    request = Request(b"12345")
    await settled()
    assert request.client.wanted == 0
    receiving = [asyncio.ensure_future(request.receive()) for _ in range(2)]
    await settled()
    assert request.client.wanted == 1
    request.received(b"12345", more=False)
    await settled()
    assert [each.done() for each in receiving].count(True) == 1
    request.gone()
    assert GONE in [await each for each in receiving]


@scenario
async def test_past_the_limit_the_client_hears_413_and_the_application_that_the_client_has_gone() -> None:
    request = Request(b"12345", b"678901", b"never read")
    assert (await request.reads(3))[1:] == [GONE, GONE]
    assert request.client.statuses == [413]
    assert request.client.told[-1][2:] == (b"The body is larger than 10 bytes.\n", False)
    assert request.bodies == [b"never read"]
    assert request.answer.status == 413


@scenario
async def test_what_the_application_answers_after_a_413_goes_nowhere() -> None:
    request = Request(b"12345678901")
    await request.reads(1)
    await request.send(START)
    await request.send(END)
    await settled()
    assert request.client.statuses == [413]


@scenario
async def test_a_response_that_has_begun_is_cut_off_instead() -> None:
    request = Request(b"12345678901")
    await request.send(START)
    await settled()
    assert await request.reads(1) == [GONE]
    await request.send(part(b"the end", more=False))
    assert request.client.told == [(200, [], b"", True), ("abort",)]
    assert request.is_cut_off


@pytest.mark.parametrize(("length", "statuses"), [(10, []), (11, [413])])
@scenario
async def test_a_length_that_is_too_large_is_known_before_anything_is_read(length: int, statuses: list[int]) -> None:
    request = Request(b"never read", length=length)
    assert (request.client.statuses, request.has_ended) == (statuses, bool(statuses))
    asked: list[str] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        asked.append("asked")
        await send(START)
        await send(END)

    await request.serves(application)
    assert asked == ["asked"] * (not statuses)


# The response.


@scenario
async def test_head_and_whole_body_are_one_call() -> None:
    request = Request()
    await request.send(START)
    await request.send(part(b"hello", more=False))
    await settled()
    assert request.client.told == [(200, [], b"hello", False)]
    assert (request.has_ended, request.answer.status, request.answer.bytes) == (True, 200, 5)


@scenario
async def test_a_head_leaves_in_the_next_turn_if_no_body_follows_at_once() -> None:
    request = Request()
    await request.send(START)
    assert request.client.told == []
    await settled()
    assert request.client.told == [(200, [], b"", True)]
    await request.send(part(b"he"))
    await request.send(part(b"llo", more=False))
    assert request.client.told[1:] == [(b"he", True), (b"llo", False)]


@scenario
async def test_a_head_is_checked_once_and_goes_on_as_it_was_checked() -> None:
    request = Request()
    headers = (each for each in [(b"X-A", b"1"), (b"transfer-encoding", b"chunked")])
    await request.send({**START, "headers": headers})
    await settled()
    assert request.client.told == [(200, [(b"x-a", b"1")], b"", True)]


@pytest.mark.parametrize("status", [204, 304])
@scenario
async def test_where_no_body_follows_none_is_sent(status: int) -> None:
    request = Request()
    await request.send({**START, "status": status, "headers": [(b"content-length", b"5")]})
    await request.send(part(b"hello", more=False))
    assert request.client.told == [(status, [], b"", False)]


@scenario
async def test_a_head_request_may_be_answered_with_a_length_alone() -> None:
    request = Request(method="HEAD")
    await request.send({**START, "headers": [(b"content-length", b"5")]})
    await request.send(END)
    assert request.client.told == [(200, [(b"content-length", b"5")], b"", False)]


WRONG: dict[str, list[Any]] = {
    "a body first": [END],
    "two heads": [START, START],
    "something else": [{"type": "http.response.push"}],
    "a status that is none": [{**START, "status": 99}],
    "a header that is none": [{**START, "headers": [(b"a\n", b"b")]}],
    "too short a body": [{**START, "headers": [(b"content-length", b"5")]}, part(b"he", more=False)],
    "too long a body": [{**START, "headers": [(b"content-length", b"5")]}, part(b"hello!")],
    "no bytes": [START, part("hello", more=False)],  # type: ignore[arg-type]
    "a body behind the last": [START, END, END],
    "a head behind the last body": [START, END, START],
}


@pytest.mark.parametrize("messages", WRONG.values(), ids=WRONG)
@scenario
async def test_a_mistake_is_raised_where_it_is_made(messages: list[Any]) -> None:
    request = Request()
    for message in messages[:-1]:
        await request.send(message)
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        await request.send(messages[-1])
    await settled()


@scenario
async def test_who_writes_waits_for_a_client_that_does_not_read() -> None:
    request = Request()
    request.client.is_paused = True
    await request.send(START)
    sending = asyncio.ensure_future(request.send(part(b"x")))
    await settled()
    assert not sending.done()
    request.resumed()
    await settled()
    assert not sending.done()
    request.client.is_paused = False
    request.resumed()
    await sending
    request.client.is_paused = True
    await request.send(part(b"", more=False))  # nothing comes behind it that would wait


@scenario
async def test_who_waits_hears_that_its_client_has_left() -> None:
    request = Request()
    request.client.is_paused = True
    await request.send(START)
    sending = asyncio.ensure_future(request.send(part(b"x")))
    receiving = [asyncio.ensure_future(request.receive()) for _ in range(2)]
    await settled()
    request.gone()
    await sending
    assert GONE in [await each for each in receiving]
    before = list(request.client.told)
    await request.send(part(b"late"))
    assert request.client.told == before


# How it ends.


@scenario
async def test_who_has_answered_hears_a_disconnect() -> None:
    request = Request()
    assert await request.receive() == body(b"", more=False)
    waiting = asyncio.ensure_future(request.receive())
    await settled()
    await request.send(START)
    await request.send(END)
    assert await waiting == GONE


@scenario
async def test_a_client_that_leaves_is_told_of() -> None:
    request = Request(b"never")
    waiting = asyncio.ensure_future(request.receive())
    await settled()
    request.gone()
    assert await waiting == GONE
    assert await request.receive() == GONE
    assert (request.client.told, request.answer.status) == ([], CLIENT_GONE)


async def failing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise ValueError("as it is meant to")


async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
    pass


async def starting(_scope: Any, _receive: Any, send: Any) -> None:
    """Fail before the head has left."""
    await send(START)


@pytest.mark.parametrize("application", [failing, silent, starting])
@scenario
async def test_a_failed_application_is_answered_for(application: Any, caplog: pytest.LogCaptureFixture) -> None:
    request = Request()
    await request.serves(application)
    await settled()
    assert request.client.statuses == [500]
    assert request.client.told[0][2:] == (b"Internal Server Error\n", False)
    assert (request.answer.status, request.is_cut_off) == (500, False)
    assert [record.getMessage() for record in caplog.records] == ["the application: GET / failed"]


@scenario
async def test_a_failed_application_s_response_that_has_begun_is_cut_off() -> None:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(part(b"x"))

    request = Request()
    await request.serves(application)
    assert request.client.told == [(200, [], b"x", True), ("abort",)]
    assert (request.is_cut_off, request.answer.status) == (True, 200)


@scenario
async def test_a_failure_behind_a_complete_response_leaves_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        raise ValueError("as it is meant to")

    request = Request()
    await request.serves(application)
    assert request.client.told == [(200, [], b"", False)]
    assert (request.is_cut_off, len(caplog.records)) == (False, 1)


@scenario
async def test_a_response_that_nobody_waits_for_counts_as_ended(caplog: pytest.LogCaptureFixture) -> None:
    request = Request(b"never")
    request.gone()
    await request.serves(failing)
    assert (request.has_ended, request.client.told, caplog.records) == (True, [], [])


@scenario
async def test_an_application_need_not_answer_a_client_that_has_left(caplog: pytest.LogCaptureFixture) -> None:
    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] == "http.request":
            pass

    request = Request(b"never")
    serving = asyncio.ensure_future(request.serves(application))
    await settled()
    request.gone()
    await serving
    assert (request.client.told, caplog.records) == ([], [])


@scenario
async def test_a_server_that_stops_may_cancel_it() -> None:
    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while True:
            await receive()

    serving = asyncio.ensure_future(Request(b"never").serves(application))
    await settled()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
