"""One turn being run: what a consumer sees, and what its calls add up to."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from asgictl.app.application import Application, Consumer, Route, path
from asgictl.app.message import Message
from asgictl.app.run import LAST_TURN, RunningTurn
from asgictl.app.sending import Group
from asgictl.errors import ConsumerError
from asgictl.wire.messages import (
    Accept,
    Broadcast,
    Close,
    Connect,
    Disconnect,
    Done,
    Frame,
    Frames,
    Receive,
    Scope,
    Sent,
    TurnEvent,
    Wire,
    decode_event,
    encode_scope,
)
from asgictl.wire.state import decode_state, encode_state
from tests.plain import TEXTS, Bytes, Code


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is half a second later than the one before."""
    times = iter(range(1000))
    monkeypatch.setattr("asgictl.app.run.perf_counter", lambda: next(times) / 2)


HEADERS = [(b"host", b"x"), (b"via", b"a"), (b"via", b"\xe9")]
SCOPE = encode_scope(Scope("", "ws", "1.1", "", "/ws/hall", b"/ws/hall", b"q=%20", HEADERS, None, None, ["chat"]))


def receive(frames: list[Frame], state: bytes = b"") -> Receive:
    return Receive("i/1", 3, 2, SCOPE, state, frames, 7)


def ran(event: TurnEvent, consumer: Consumer) -> RunningTurn:
    return RunningTurn(Application(websocket=[routed(**{type(event).__name__.lower(): consumer})]), event)


def routed(**consumers: Any) -> Route:
    return path("/ws/{room}", **consumers)


def connect() -> Connect:
    return Connect("i/1", 1, 1, SCOPE, b"")


def test_a_consumer_sees_the_handshake() -> None:
    seen: list[object] = []

    def joined(message: Message) -> None:
        seen.extend([message.path, message.query_string, message.subprotocols, message.headers, message.params])
        message.accept("chat", [(b"x", b"y")])

    done = ran(connect(), joined).run()
    assert seen == ["/ws/hall", b"q=%20", ["chat"], {"host": "x", "via": "a, é"}, {"room": "hall"}]
    assert done.accept == Accept("chat", [(b"x", b"y")])


def test_each_frame_is_a_message_with_an_id_of_its_own() -> None:
    seen: list[tuple[object, ...]] = []

    def say(message: Message) -> None:
        seen.append((message.text, message.data, message.id, message.attempt))

    ran(receive(["a", b"b"]), say).run()
    assert seen == [("a", None, "i/1:7", 2), (None, b"b", "i/1:8", 2)]


def test_a_disconnect_says_how_it_came() -> None:
    seen: list[object] = []
    ran(Disconnect("i/1", 4, 1, SCOPE, b"", 1006, "gone"), lambda m: seen.extend([m.code, m.reason, m.text])).run()
    assert seen == [1006, "gone", None]


def test_all_that_a_turn_produced_is_in_its_reply() -> None:
    def say(message: Message) -> None:
        message.reply(text="t")
        message.reply(data=b"d")
        message.join("in")
        message.leave("out")
        Group("g").send(text=message.text)

    turn = ran(receive(["x"]), say)
    assert turn.run() == Done("i/1", 3, ["t", b"d"], b"", None, None, ["in"], ["out"], 2, run_seconds=0.5)
    assert turn.outcome.sends == [Broadcast("g", "x")]


def test_no_message_follows_the_one_that_closed() -> None:
    seen: list[str | None] = []

    def say(message: Message) -> None:
        seen.append(message.text)
        message.close(4001, "bye")

    assert ran(receive(["a", "b"]), say).run().close == Close(4001, "bye")
    assert seen == ["a"]


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, {"n": 1}, {"n": 1}),
        ({"n": 1}, {"n": 1}, None),
        ({"n": 1}, {}, None),
        ({}, {}, None),
        ({"n": 1}, {"n": None}, {"n": None}),
    ],
)
def test_only_a_changed_state_travels(before: dict[str, Any], change: dict[str, Any], after: Any) -> None:
    done = ran(receive(["x"], encode_state(before)), lambda message: message.state.update(change)).run()
    assert (decode_state(done.state) if done.state else None) == after


def last_will(event: TurnEvent, **consumers: Consumer) -> Wire | None:
    turn = RunningTurn(Application(websocket=[routed(**consumers)]), event)
    turn.run()
    value = turn.last_will()
    return decode_event(b"1", value) if value else None


def leave(message: Message) -> None:
    """Wants to hear of the end."""


def remember(message: Message) -> None:
    message.state["n"] = 1


def test_a_turn_that_opens_or_changes_a_connection_leaves_its_last_will() -> None:
    def accept(message: Message) -> None:
        message.accept()

    state = encode_state({"n": 1})
    assert last_will(connect(), connect=accept, disconnect=leave) == Disconnect(
        "i/1", LAST_TURN, 1, SCOPE, b"", 1006, ""
    )
    assert last_will(receive(["x"]), receive=remember, disconnect=leave) == Disconnect(
        "i/1", LAST_TURN, 1, SCOPE, state, 1006, ""
    )


@pytest.mark.parametrize(
    ("event", "consumers"),
    [
        (receive(["x"]), {"receive": remember}),
        (receive(["x"]), {"receive": leave, "disconnect": leave}),
        (connect(), {"connect": lambda message: message.close(), "disconnect": leave}),
        (Disconnect("i/1", 4, 1, SCOPE, b"", 1006, ""), {"disconnect": remember}),
    ],
    ids=["nobody wants it", "nothing new", "refused", "the end itself"],
)
def test_other_turns_leave_no_last_will(event: TurnEvent, consumers: dict[str, Consumer]) -> None:
    assert last_will(event, **consumers) is None


def raises(message: Message) -> None:
    message.reply(text="lost")
    Group("g").send(text="lost")
    raise ValueError("theirs")


FAULTS: dict[str, Callable[[Message], Any]] = {
    "an exception": raises,
    "accept() in receive": lambda message: message.accept(),
    "a frame that is none": lambda message: message.reply(),
    "a close code that may not be sent": lambda message: message.close(1006),
    "a close reason that is too long": lambda message: message.close(1000, "é" * 62),
    "a group without a name": lambda message: message.join(""),
    "a state too large": lambda message: message.state.update(big="x" * (64 << 10)),
    "a state that cannot travel": lambda message: message.state.update(it=object()),
    "text that utf-8 cannot carry": lambda message: message.reply(text="\ud800"),
    "immediately where nothing can be sent": lambda message: message.reply(text="x", immediately=True),
    "a group's name that utf-8 cannot carry": lambda message: message.join("\ud800"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_closes_with_1011_and_nothing_of_the_turn_leaves(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    turn = ran(receive(["x"]), FAULTS[fault])
    assert turn.run() == Done("i/1", 3, [], b"", None, Close(1011, ""), [], [], 2, run_seconds=0.5)
    assert turn.outcome.sends == []
    assert len(caplog.records) == 1


def wrong_headers(message: Message) -> None:
    headers: Any = [("x-name", "text")]
    message.accept(headers=headers)


def wrong_subprotocol(message: Message) -> None:
    subprotocol: Any = b"chat"
    message.accept(subprotocol)


def split_headers(message: Message) -> None:
    message.accept(headers=[(b"x", b"a\r\nb: c")])


def split_subprotocol(message: Message) -> None:
    message.accept("a\r\nx: y")


@pytest.mark.parametrize(
    "consumer", [raises, lambda message: None, wrong_headers, wrong_subprotocol, split_headers, split_subprotocol]
)
def test_a_fault_in_connect_refuses_the_handshake_with_500(consumer: Consumer) -> None:
    close = ran(connect(), consumer).run().close
    assert close is not None
    assert close.status == 500


@pytest.mark.parametrize(
    "late",
    [
        lambda message: message.reply(text="x"),
        lambda message: message.reply(text="x", immediately=True),
        lambda message: message.join("g"),
        lambda message: message.leave("g"),
        lambda message: message.close(),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_message_whose_event_is_over_says_what_to_do(late: Consumer, fails: bool) -> None:
    kept: list[Message] = []

    def keeps(message: Message) -> None:
        kept.append(message)
        if fails:
            raise ValueError("theirs")

    ran(receive(["a"]), keeps).run()
    with pytest.raises(ConsumerError, match=r"the event i/1:7 is over.*join a group"):
        late(kept[0])


def test_a_reply_to_a_connection_that_has_gone_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    ran(Disconnect("i/1", 4, 1, SCOPE, b"", 1006, ""), lambda message: message.reply(text="bye")).run()
    assert "the connection is closed; send to a group" in caplog.text


IMPORTS_DJANGO = """
import asyncio, logging, sys
import django.db  # as a library does that serves Django's users too
from asgictl.app.run import close_old_connections, close_old_connections_async

logging.lastResort.setLevel(0)
close_old_connections()
asyncio.run(close_old_connections_async())
"""


def test_django_that_is_only_imported_has_no_connections_to_close() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS_DJANGO], check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_a_session_without_django_says_what_it_needs() -> None:
    errors: list[str] = []

    def asks(message: Message) -> None:
        for name in ("session", "user"):
            with pytest.raises(ConsumerError) as caught:
                getattr(message, name)
            errors.append(str(caught.value))

    ran(receive(["a"]), asks).run()
    assert all("django.contrib.sessions" in each and "django.setup()" in each for each in errors)


def test_cookies_are_joined_as_a_cookie_header_has_them() -> None:
    scope = encode_scope(
        Scope("", "ws", "2", "", "/ws/x", b"", b"", [(b"cookie", b"a=1"), (b"cookie", b"b=2")], None, None)
    )
    seen: list[str] = []
    ran(Receive("i/1", 1, 1, scope, b"", ["x"], 0), lambda message: seen.append(message.headers["cookie"])).run()
    assert seen == ["a=1; b=2"]


def test_an_event_without_a_consumer_produces_nothing() -> None:
    turn = RunningTurn(Application(), receive(["x"]))
    assert turn.run() == Done("i/1", 3, [], b"", None, None, [], [], 2, run_seconds=0.5)


def test_a_connection_that_no_consumer_answers_is_accepted_and_leaves_its_last_will() -> None:
    turn = RunningTurn(Application(websocket=[path("/ws/{room}", disconnect=leave)]), connect())
    assert turn.run() == Done("i/1", 1, [], b"", Accept(None, []), None, [], [], run_seconds=0.5)
    assert turn.last_will()


def test_an_async_consumer_obeys_the_same_rules() -> None:
    async def say(message: Message) -> None:
        await asyncio.sleep(0)
        message.reply(text=message.text)
        Group("g").send(text="to all")

    turn = ran(receive(["a", "b"]), say)
    assert turn.is_async
    assert asyncio.run(turn.run_async()).frames == ["a", "b"]
    assert len(turn.outcome.sends) == 2


def test_an_async_consumers_exception_closes_with_1011() -> None:
    async def fails(message: Message) -> None:
        raises(message)

    assert asyncio.run(ran(receive(["a"]), fails).run_async()).close == Close(1011, "")


def test_a_callable_object_may_be_an_async_consumer() -> None:
    class Say:
        async def __call__(self, message: Message) -> None:
            message.reply(text="said")

    assert ran(receive(["a"]), Say()).is_async


def test_what_is_sent_immediately_leaves_at_once_and_is_not_sent_again_with_the_turn() -> None:
    sent: list[tuple[Frames | Sent, int]] = []

    def say(message: Message) -> None:
        message.reply(text="half", immediately=True)
        message.reply(data=b"done")
        Group("g").send(data=b"half", immediately=True)

    turn = RunningTurn(
        Application(websocket=[path("/ws/{room}", receive=say)]),
        receive(["x"]),
        lambda frame: sent.append((frame, len(turn.outcome.frames))),
    )
    assert turn.run().frames == [b"done"]
    assert sent == [(Frames("i/1", ["half"]), 0), (Broadcast("g", b"half"), 1)]
    assert turn.outcome.sends == []


def test_nothing_is_sent_immediately_to_a_connection_that_is_not_open() -> None:
    sent: list[object] = []

    def accept(message: Message) -> None:
        message.accept()
        message.reply(text="too early", immediately=True)

    turn = RunningTurn(Application(websocket=[path("/ws/{room}", connect=accept)]), connect(), sent.append)
    close = turn.run().close
    assert (close and close.status, sent) == (500, [])


def test_a_turn_that_sends_to_a_group_and_leaves_it_has_a_copy_of_its_own() -> None:
    def move(message: Message) -> None:
        Group("g").send(text=message.text)
        message.leave("g")

    turn = ran(receive(["a", "b"]), move)
    done = turn.run()
    assert (done.leaves, done.own, done.frames) == (["g", "g"], [("g", "a")], [])
    assert turn.outcome.sends == [Broadcast("g", "a"), Broadcast("g", "b")]


@pytest.mark.parametrize("calls", [["join", "leave"], ["leave", "join"], ["join", "leave", "join"]])
def test_of_a_turn_s_joins_and_leaves_the_last_counts(calls: list[str]) -> None:
    def move(message: Message) -> None:
        for call in calls:
            getattr(message, call)("hello")
        message.leave("other")

    done = ran(receive(["x"]), move).run()
    assert (set(done.joins), set(done.leaves)) == (
        ({"hello"}, {"other"}) if calls[-1] == "join" else (set(), {"hello", "other"})
    )


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_consumer_says_is_plain(text: str) -> None:
    def say(message: Message) -> None:
        message.reply(text=text)
        message.reply(data=Bytes(b"hello"))
        message.join(text)
        message.close(Code.OWN, text)

    done = ran(receive(["x"]), say).run()
    assert done.close
    assert (done.frames, done.joins, done.close) == (["hello", b"hello"], ["hello"], Close(4000, "hello"))
    said = (*done.frames, *done.joins, done.close.code, done.close.reason)
    assert [type(each) for each in said] == [str, bytes, str, int, str]

    def accepts(message: Message) -> None:
        message.accept(text, [(Bytes(b"x"), Bytes(b"y"))])

    accept = ran(connect(), accepts).run().accept
    assert accept == Accept("hello", [(b"x", b"y")])
    assert accept
    assert {type(each) for each in (*accept.headers[0], accept.subprotocol)} == {bytes, str}


@pytest.mark.parametrize("code", [4000.0, "4000", None, True, 5])
def test_a_close_code_is_a_whole_number_that_may_be_sent(code: Any) -> None:
    def say(message: Message) -> None:
        with pytest.raises(ConsumerError, match="may not be sent"):
            message.close(code)

    ran(receive(["x"]), say).run()


@pytest.mark.parametrize("reason", [None, 5, "lone \udc80", "x" * 124])
def test_a_close_reason_is_text_that_fits(reason: Any) -> None:
    def say(message: Message) -> None:
        with pytest.raises(ConsumerError):
            message.close(4000, reason)

    assert ran(receive(["x"]), say).run().close is None


ENDS = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException, StopIteration]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_consumer_that_ends_closes_with_1011_and_is_told_once(
    how: type[BaseException], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def say(message: Message) -> None:
        message.reply(text="never seen")
        raise how

    async def async_say(message: Message) -> None:
        say(message)

    turn = ran(receive(["x"]), async_say if is_async else say)
    done = asyncio.run(turn.run_async()) if is_async else turn.run()
    assert (done.frames, done.close) == ([], Close(1011, "", 403))
    assert [record.getMessage() for record in caplog.records] == ["the application: websocket.receive /ws/hall failed"]
