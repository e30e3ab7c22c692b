"""One WebSocket on its way through an ASGI application, with an interface that a test plays."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgictl.layers.base import Entry
from asgictl.layers.flow_control import FRAME_BYTES, weight
from asgictl.wire.messages import (
    WINDOW_BYTES,
    Accept,
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frame,
    Frames,
    Gone,
    Incoming,
    InterfaceDied,
    Want,
    WorkerMessage,
)
from asgictl.worker.asgi_websocket import WebSocketRun
from tests.worker.conftest import Events, scenario, settled

ENTRY = b"5-0"
ACCEPT = {"type": "websocket.accept"}
Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


class Run:
    """One socket that runs, and all that it sends."""

    def __init__(self, application: Application, timeout_seconds: float = 0) -> None:
        self.events = Events()
        events: Any = self.events
        event = Connect("i/1", 1, 1, b"", b"")
        scope = {"type": "websocket", "path": "/ws"}
        self.run = WebSocketRun(Entry(b"ch", ENTRY, event), event, scope, events, timeout_seconds)
        self.task = asyncio.create_task(self.run.run(application))
        self._sequence = 0

    async def hears(self, *letters: WorkerMessage) -> None:
        for letter in letters:
            self.run.take(letter)
        await settled()

    async def says(self, *frames: Frame) -> None:
        for frame in frames:
            self._sequence += 1
            await self.hears(Incoming("i/1", ENTRY, frame, self._sequence))

    async def leaves(self, code: int = 1001, reason: str = "") -> None:
        self._sequence += 1
        await self.hears(Ended("i/1", ENTRY, code, reason, self._sequence))

    async def credits(self, size: int) -> None:
        self._sequence += 1
        await self.hears(Credit("i/1", ENTRY, size, self._sequence))

    def answer(self) -> Done:
        (done,) = self.events.commits
        assert isinstance(done, Done)
        return done

    def frames(self) -> list[Frame]:
        return [frame for each in self.events.sent if isinstance(each, Frames) for frame in each.frames]

    def closes(self) -> list[tuple[int, str]]:
        return [(each.code, each.reason) for each in self.events.sent if isinstance(each, Closed)]

    def in_sequence(self) -> bool:
        """Whether what the interface was sent is numbered without a gap, and says whose it is."""
        numbered = [each for each in self.events.sent if isinstance(each, Frames | Closed | Want) and each.sequence]
        return [(each.sequence, each.entry) for each in numbered] == [(n, ENTRY) for n in range(1, len(numbered) + 1)]


async def opened(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)


def says(*messages: Any, accepts: bool = True) -> Application:
    """An application that sends this and returns."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if accepts:
            await opened(receive, send)
        for message in messages:
            await send(message)

    return application


def text(frame: Any) -> dict[str, Any]:
    return {"type": "websocket.send", "text": frame}


@scenario
async def test_an_accept_names_the_inbox_that_the_socket_stays_with() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"X-A", b"1")]})
        await receive()

    run = Run(application)
    await settled()
    done = run.answer()
    assert done.accept == Accept("chat", [(b"x-a", b"1")])
    assert (done.number, done.entry, done.inbox) == (0, ENTRY, "w.asgi")
    await run.leaves()
    await run.task


@scenario
async def test_messages_pass_both_ways_in_order_and_once() -> None:
    heard: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message)
            await send({**message, "type": "websocket.send"})
        heard.append(message)
        assert await receive() == message, "as often as it asks"

    run = Run(application)
    await settled()
    await run.says("", b"", "text", b"data")
    await run.hears(Incoming("i/1", ENTRY, "", 1), Incoming("i/1", ENTRY, "text", 3))
    await run.leaves(4000, "bye")
    await run.task
    assert heard == [
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b"data"},
        {"type": "websocket.disconnect", "code": 4000, "reason": "bye"},
    ]
    assert run.frames() == ["", b"", "text", b"data"]
    assert run.closes() == []
    assert run.in_sequence()


@pytest.mark.parametrize(("last", "close"), [([], (1000, "")), ([{"code": 4000, "reason": "bye"}], (4000, "bye"))])
def test_a_socket_is_closed_as_the_application_says_or_when_it_returns(
    last: list[dict[str, Any]], close: tuple[int, str]
) -> None:
    @scenario
    async def run() -> None:
        run = Run(says(text("x"), *[{"type": "websocket.close", **each} for each in last]))
        await run.task
        assert run.closes() == [close]
        assert run.in_sequence()

    run()


@scenario
async def test_behind_its_own_close_the_application_hears_of_it_and_may_send_nothing() -> None:
    heard: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
        heard.append(await receive())
        with pytest.raises(RuntimeError, match="CLOSED"):
            await send(text("late"))

    run = Run(application)
    await settled()
    await run.leaves(1006)
    await run.task
    assert heard == [{"type": "websocket.disconnect", "code": 4000, "reason": "bye"}]


REFUSALS: list[tuple[list[dict[str, Any]], Close]] = [
    ([{"type": "websocket.close", "code": 4000}], Close(1000, "", 403)),
    (
        [
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X-A", b"1")]},
            {"type": "websocket.http.response.body", "body": b"not ", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"you"},
        ],
        Close(1000, "", 401, [(b"x-a", b"1")], b"not you"),
    ),
]


@pytest.mark.parametrize(("messages", "close"), REFUSALS)
def test_a_refusal_is_answered_once_and_stays_with_nobody(messages: list[dict[str, Any]], close: Close) -> None:
    @scenario
    async def run() -> None:
        run = Run(says(*messages, accepts=False))
        await run.task
        assert (run.answer().close, run.answer().inbox) == (close, "")
        assert run.events.sent == []

    run()


@scenario
async def test_an_application_that_waits_before_it_answers_hears_of_its_client() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append((await receive())["type"])
        with pytest.raises(OSError, match="gone"):
            await send(ACCEPT)

    heard: list[str] = []
    run = Run(application)
    await settled()
    assert run.events.sent == [Want("i/1", 1, ENTRY, "w.asgi", 0)], "so that the interface knows whom to tell"
    await run.hears(Gone("i/1", ENTRY))
    await run.task
    assert heard == ["websocket.disconnect"]
    assert run.answer().close


@pytest.mark.parametrize("answer", [1, -1])
def test_an_interface_that_has_gone_is_noticed_by_the_handshake_s_commit(answer: int) -> None:
    @scenario
    async def run() -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await opened(receive, send)
            assert (await receive())["code"] == 1006
            with pytest.raises(OSError, match="gone"):
                await send(text("x"))

        run = Run(application)
        run.events.answer = answer
        await settled()
        assert run.task.done() == (answer == -1)
        await run.leaves(1006)
        await run.task

    run()


@scenario
async def test_a_close_after_the_client_left_is_nothing() -> None:
    """B10."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        await receive()
        await send({"type": "websocket.close"})
        await send({"type": "websocket.close", "code": 4000})

    run = Run(application)
    await settled()
    await run.leaves(1001)
    await run.task
    assert run.closes() == []
    assert not run.run.has_failed


LETTERS: list[WorkerMessage] = [Gone("i/1", ENTRY), InterfaceDied("i"), Ended("i/1", ENTRY, 1006, "", 1)]


@pytest.mark.parametrize("letter", LETTERS)
def test_an_application_that_only_waits_hears_of_the_end(letter: WorkerMessage) -> None:
    @scenario
    async def run() -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await opened(receive, send)
            assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

        run = Run(application)
        await settled()
        await run.hears(letter)
        await run.task
        assert run.closes() == []

    run()


@scenario
async def test_an_interface_that_has_gone_is_noticed_when_it_is_sent_something() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        await receive()
        await send(text("into the void"))
        assert (await receive())["code"] == 1006

    run = Run(application)
    await settled()
    run.events.is_there = False
    await run.says("go on")
    await run.task


@scenario
async def test_a_letter_that_is_missing_closes_the_socket_with_1012() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        assert (await receive())["text"] == "one"
        assert (await receive())["code"] == 1012

    run = Run(application)
    await settled()
    await run.hears(Incoming("i/1", ENTRY, "one", 1), Incoming("i/1", ENTRY, "three", 3))
    await run.task
    assert run.closes() == [(1012, "")]


@scenario
async def test_a_worker_that_ends_closes_the_socket_with_1012() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        assert (await receive())["code"] == 1012
        with pytest.raises(OSError, match="gone"):
            await send(text("late"))

    run = Run(application)
    await settled()
    run.run.restart()
    await run.task
    assert run.closes() == [(1012, "")]


@scenario
async def test_send_waits_for_a_client_that_does_not_read() -> None:
    frame = "x" * 100_000
    sent: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        for number in range(30):
            await send(text(frame))
            sent.append(number)

    run = Run(application)
    await settled()
    room = -(-WINDOW_BYTES // weight(frame))
    assert len(sent) == room - 1, "the one that has used the window up waits"
    await run.credits(weight(frame))
    await settled()
    assert len(sent) == room
    await run.credits(30 * weight(frame))
    await run.task
    assert run.frames() == [frame] * 30


@scenario
async def test_a_send_that_waits_is_told_of_the_end() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        for _ in range(10):
            await send(text("x" * 100_000))
        with pytest.raises(OSError, match="gone"):
            await send(text("x" * 100_000))

    run = Run(application)
    await settled()
    await run.leaves()
    await run.task


@scenario
async def test_the_interface_is_told_of_exactly_what_was_taken() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await opened(receive, send)
        while (await receive())["type"] == "websocket.receive":
            pass

    run = Run(application)
    await settled()
    said: list[Frame] = ["", b"x" * 10_000, "y" * 20_000] * 40
    await run.says(*said)
    wants = [each.size for each in run.events.sent if isinstance(each, Want) and each.sequence]
    assert 0 <= sum(map(weight, said)) - sum(wants) < WINDOW_BYTES // 4 + FRAME_BYTES
    assert run.in_sequence()
    await run.leaves()
    await run.task


@pytest.mark.parametrize("accepts", [False, True])
def test_an_exception_is_500_or_1011_and_logged_once(accepts: bool, caplog: pytest.LogCaptureFixture) -> None:
    @scenario
    async def run() -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if accepts:
                await opened(receive, send)
            raise SystemExit("of an application's own")

        run = Run(application)
        await run.task
        assert run.closes() == ([(1011, "")] if accepts else [])
        assert run.answer().close == (None if accepts else Close(1011, "", 500))

    run()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "the application: WebSocket /ws failed")
    ]


GARBAGE: list[tuple[bool, Any]] = [
    (False, text("before the accept")),
    (False, None),
    (False, {}),
    (False, {"type": "http.response.start", "status": 200}),
    (False, {**ACCEPT, "subprotocol": 5}),
    (False, {**ACCEPT, "subprotocol": "a\r\nx: y"}),
    (False, {**ACCEPT, "headers": [("x-a", "b")]}),
    (False, {**ACCEPT, "headers": [(b"x-a", b"a\r\nb: c")]}),
    (False, {"type": "websocket.http.response.start", "status": 600}),
    (False, {"type": "websocket.http.response.start", "status": 101}),
    (False, {"type": "websocket.http.response.body", "body": b"first"}),
    (True, ACCEPT),
    (True, None),
    (True, text(5)),
    (True, text("\ud800")),
    (True, {"type": "websocket.send"}),
    (True, {"type": "websocket.what"}),
    (True, {"type": "websocket.close", "code": 999}),
    (True, {"type": "websocket.close", "code": 1006}),
    (True, {"type": "websocket.close", "code": 4000, "reason": "x" * 124}),
]


@pytest.mark.parametrize(("accepts", "message"), GARBAGE)
def test_garbage_is_500_or_1011(accepts: bool, message: Any) -> None:
    @scenario
    async def run() -> None:
        run = Run(says(message, accepts=accepts))
        await run.task
        assert run.closes() == ([(1011, "")] if accepts else [])
        assert (run.answer().close == Close(1011, "", 500)) == (not accepts)
        assert run.in_sequence()

    run()


def test_an_application_that_never_answers_its_handshake_is_cancelled_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    @scenario
    async def run() -> None:
        run = Run(application, timeout_seconds=0.01)
        await run.task
        assert [each.close for each in run.events.commits if isinstance(each, Done)] == [Close(1011, "", 504)]

    run()
    assert [record.getMessage() for record in caplog.records] == ["the application: WebSocket /ws failed"]


@scenario
async def test_an_application_whose_client_left_has_to_end() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await asyncio.sleep(0.05)  # longer than an answer may take
        was_open.set()
        await asyncio.Event().wait()

    was_open = asyncio.Event()
    run = Run(application, timeout_seconds=0.01)
    await was_open.wait()
    await run.leaves()
    await run.task
