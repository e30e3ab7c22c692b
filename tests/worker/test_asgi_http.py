"""One HTTP request on its way through an ASGI application, with an interface that a test plays."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgictl.app.sending import Group
from asgictl.layers.base import Entry
from asgictl.wire.messages import WINDOW_BYTES, Broadcast, Chunk, Credit, Gone, Request, Response, Want, WorkerMessage
from asgictl.worker import asgi_http
from asgictl.worker.asgi_http import HTTPRun
from asgictl.worker.response import PART_BYTES
from tests.worker.conftest import Events, scenario, scope, settled

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")]}
ENTRY = b"5-0"
Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Run:
    """One request that runs, and all that it sends."""

    def __init__(
        self,
        application: Application,
        data: bytes = b"",
        method: str = "GET",
        timeout_seconds: float = 0,
        **changed: Any,
    ) -> None:
        self.events = Events()
        events: Any = self.events
        event = Request("i/1", 1, scope(method), data, **changed)
        self.run = HTTPRun(Entry(b"ch", ENTRY, event), event, {"type": "http"}, events, timeout_seconds)
        self.task = asyncio.create_task(self.run.run(application))

    @property
    def parts(self) -> list[Response]:
        return [each for each in (*self.events.sent, *self.events.commits) if isinstance(each, Response)]

    @property
    def wanted(self) -> list[int]:
        return [each.size for each in self.events.sent if isinstance(each, Want)]

    @property
    def whole(self) -> bytes:
        return b"".join(part.body for part in self.parts)

    async def hears(self, *letters: WorkerMessage) -> None:
        for letter in letters:
            self.run.take(letter)
        await settled()

    async def ends(self) -> Response:
        """Wait for the end; returns the one part that was committed."""
        await self.task
        (part,) = self.events.commits
        assert isinstance(part, Response)
        if self.events.is_there:
            assert [each.sequence for each in self.parts] == list(range(len(self.parts)))
        assert {each.entry for each in self.parts} == {ENTRY}
        return part


def chunk(sequence: int, data: bytes, *, more: bool = True) -> Chunk:
    return Chunk("i/1", ENTRY, sequence + 1, data, more)


GONE = Gone("i/1", ENTRY)


@scenario
async def test_a_response_that_is_whole_at_once_is_one_commit() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"inline", "more_body": False}
        await send(START)
        await send(body(b"hello"))

    run = Run(application, b"inline")
    part = await run.ends()
    assert (part.status, part.headers, part.body, part.more, part.inbox) == (200, [(b"x-a", b"1")], b"hello", False, "")
    assert run.events.sent == []


@scenario
async def test_the_head_leaves_at_once_when_no_body_follows() -> None:
    go_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await go_on.wait()
        await send(body(b"late"))

    run = Run(application)
    await settled()
    assert [(part.status, part.body, part.more, part.inbox) for part in run.parts] == [(200, b"", True, "w.asgi")]
    go_on.set()
    assert (await run.ends()).headers == []


@scenario
async def test_a_response_ends_though_its_end_cancels_whoever_sent_it() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def respond() -> None:
            await send(START)
            await send(body(b"a", more=True))
            await send(body(b"b"))

        await receive()
        sender = asyncio.create_task(respond())
        assert await receive() == {"type": "http.disconnect"}  # as Django listens for it, and then cancels
        sender.cancel()

    run = Run(application)
    assert (await run.ends()).body == b"b"
    assert run.whole == b"ab"


@scenario
async def test_a_body_flows_under_credit() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"x" * 10 * PART_BYTES, more=True))
        await send(body(b"end"))

    run = Run(application, credit=PART_BYTES + 1)
    await settled()
    assert [len(part.body) for part in run.parts] == [PART_BYTES, 1]
    await run.hears(Credit("i/1", ENTRY, PART_BYTES, 1))
    assert [len(part.body) for part in run.parts] == [PART_BYTES, 1, PART_BYTES]
    await run.hears(Credit("i/1", ENTRY, 100 * PART_BYTES, 2))
    await run.ends()
    assert run.whole == b"x" * 10 * PART_BYTES + b"end"
    assert max(len(part.body) for part in run.parts) == PART_BYTES


@scenario
async def test_a_client_that_takes_nothing_for_too_long_ends_the_response() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"x" * 100, more=True))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asgi_http, "STALL_SECONDS", 0)
        run = Run(application, credit=10)
        assert (await run.ends()).aborted


@scenario
async def test_a_large_body_is_asked_for_when_it_is_read_and_before_it_has_run_out() -> None:
    heard: list[bytes] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await reading.wait()
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            heard.append(message["body"])
        await send(START)
        await send(body())

    reading = asyncio.Event()
    run = Run(application, more=True, method="POST")
    await settled()
    assert run.wanted == []
    reading.set()
    await settled()
    assert run.wanted == [WINDOW_BYTES]
    half = b"x" * (WINDOW_BYTES // 2)
    await run.hears(chunk(0, half), chunk(0, half), chunk(1, b"y"))
    assert run.wanted == [WINDOW_BYTES, WINDOW_BYTES // 2 + 1], "a repeated one counts once"
    await run.hears(chunk(2, b"", more=False))
    await run.ends()
    assert heard == [half, b"y", b""]


@pytest.mark.parametrize("letter", [GONE, chunk(1, b"behind a gap")])
def test_a_body_that_ends_too_soon_is_a_disconnect(letter: WorkerMessage) -> None:
    heard: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])
        await send(START)

    @scenario
    async def run() -> None:
        run = Run(application, more=True)
        await settled()
        await run.hears(letter)
        assert (await run.ends()).status == 500
        assert heard == ["http.disconnect"] * 2

    run()


@scenario
async def test_an_application_that_waits_for_its_client_to_leave_is_told() -> None:
    heard: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append((await receive())["type"])

    run = Run(application)
    await settled()
    assert run.wanted == [0], "so that the interface knows whom to tell"
    await run.hears(GONE)
    await run.ends()
    assert heard == ["http.disconnect"]


@scenario
async def test_receive_is_over_once_the_response_is_and_asks_for_nothing() -> None:
    heard: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        waiting = asyncio.ensure_future(receive())
        await settled()
        await send(START)
        await send(body(b"whole"))
        heard.extend([(await waiting)["type"], (await receive())["type"]])

    run = Run(application, more=True)
    await run.ends()
    assert heard == ["http.disconnect"] * 2
    assert run.wanted == [WINDOW_BYTES], "what was asked before the response"


@scenario
async def test_a_cancelled_receive_loses_nothing() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.ensure_future(receive())
        await settled()
        task.cancel()
        await settled()
        run.run.take(chunk(0, b"first", more=False))
        assert (await receive())["body"] == b"first"
        await send(START)
        await send(body())

    run = Run(application, more=True)
    assert (await run.ends()).status == 200


@pytest.mark.parametrize("how", ["told", "found"])
def test_send_raises_once_the_client_has_left(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send(body(b"tick", more=True))
            await asyncio.sleep(0)

    @scenario
    async def run() -> None:
        run = Run(application)
        await settled()
        if how == "told":
            await run.hears(GONE)
        else:
            run.events.is_there = False
        assert (await run.ends()).aborted

    run()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def raising(*messages: dict[str, Any]) -> Application:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise SystemExit("of an application's own")

    return application


@pytest.mark.parametrize(
    ("begun", "status", "aborted"), [([], 500, False), ([START, body(b"x", more=True)], 200, True)]
)
def test_an_exception_is_500_or_cuts_the_response_off_and_is_logged_once(
    begun: list[dict[str, Any]], status: int, aborted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @scenario
    async def run() -> None:
        part = await Run(raising(*begun)).ends()
        assert (part.status, part.aborted) == (status, aborted)

    run()
    assert [record.getMessage() for record in caplog.records] == ["the application: GET /a b failed"]


def test_an_application_that_never_answers_is_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    @scenario
    async def run() -> None:
        assert (await Run(application, timeout_seconds=0.01).ends()).status == 504

    run()
    assert [record.getMessage() for record in caplog.records] == ["the application: GET /a b failed"]
    assert "TimeoutError" in caplog.text


@scenario
async def test_an_application_whose_client_left_has_to_end() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.Event().wait()

    run = Run(application, timeout_seconds=0.01)
    await settled()
    run.run.end_early()
    assert (await run.ends()).aborted


@scenario
async def test_what_runs_behind_a_response_may_take_its_time() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"whole"))
        await asyncio.sleep(0.05)
        went_on.set()

    went_on = asyncio.Event()
    assert (await Run(application, timeout_seconds=0.01).ends()).body == b"whole"
    assert went_on.is_set()


@scenario
async def test_an_exception_behind_a_response_changes_nothing_of_it() -> None:
    assert (await Run(raising(START, body(b"whole"))).ends()).body == b"whole"


def says(*messages: Any) -> Application:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return application


BAD: list[list[Any]] = [
    [],
    [body()],
    [{}],
    [None],
    [{"type": "websocket.accept"}],
    [{**START, "status": 99}],
    [{**START, "status": "200"}],
    [{**START, "headers": [("x-a", "b")]}],
    [{**START, "headers": [(b"x a", b"b")]}],
    [{**START, "headers": [(b"x-a", b"b\r\nx-b: c")]}],
    [START, {"type": "http.response.body", "body": "text"}],
]


@pytest.mark.parametrize("messages", BAD)
def test_garbage_is_500(messages: list[Any]) -> None:
    @scenario
    async def run() -> None:
        assert (await Run(says(*messages)).ends()).status == 500

    run()


@pytest.mark.parametrize("data", [[b"1234"], [b"123456"], [b"123", b""], [b"123", b"456"]])
def test_a_body_of_another_length_than_its_headers_say_is_an_error(data: list[bytes]) -> None:
    start = {**START, "headers": [(b"content-length", b"5")]}
    messages = [body(each, more=index < len(data) - 1) for index, each in enumerate(data)]

    @scenario
    async def run() -> None:
        part = await Run(says(start, *messages)).ends()
        assert part.aborted or part.status == 500

    run()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_a_response_without_a_body_may_have_a_length(method: str, status: int) -> None:
    start = {**START, "status": status, "headers": [(b"content-length", b"5")]}

    @scenario
    async def run() -> None:
        assert (await Run(says(start, body()), method=method).ends()).status == status

    run()


@scenario
async def test_broadcasts_leave_with_the_response_and_those_behind_it_at_the_end() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        Group("g").send(text="with it")
        await send(START)
        await send(body())
        assert run.events.published == [Broadcast("g", "with it")]
        Group("g").send(text="behind it")
        Group("g").send(text="at once", immediately=True)

    run = Run(application)
    await run.ends()
    assert [each.frame for each in run.events.published] == ["with it", "at once", "behind it"]


@scenario
async def test_what_was_sent_before_an_exception_does_not_leave() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        Group("g").send(text="never")
        raise ValueError("theirs")

    run = Run(application)
    assert (await run.ends()).status == 500
    assert run.events.published == []
