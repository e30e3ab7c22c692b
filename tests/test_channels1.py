"""Channels 1's names, over turns and jobs as they are run."""

from types import ModuleType
from typing import Any

import pytest

from asgictl.app.application import Application
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.channels1 import (
    Channel,
    Group,
    Message,
    application,
    channel_session,
    channel_session_user_from_http,
    enforce_ordering,
    include,
    route,
)
from asgictl.errors import AsgictlError, TargetError
from asgictl.wire.messages import (
    Accept,
    Broadcast,
    Close,
    Connect,
    Disconnect,
    Done,
    Job,
    Receive,
    Scope,
    Sent,
    TurnEvent,
    encode_scope,
)
from asgictl.wire.state import decode_state, encode_state

HEADERS = [(b"host", b"x")]
SCOPE = encode_scope(
    Scope("", "ws", "1.1", "/sub", "/sub/chat/hall/", b"/sub/chat/hall/", b"a=b", HEADERS, ("c", 1), None)
)
CONNECT = Connect("i/1", 1, 1, SCOPE, b"")
DISCONNECT = Disconnect("i/1", 9, 1, SCOPE, b"", 1001, "")
OWN = "reply!i/1"


def receive(*frames: Any, state: dict[str, Any] | None = None) -> Receive:
    return Receive("i/1", 3, 1, SCOPE, encode_state(state or {}), list(frames), 0)


def ran(routing: Any, event: TurnEvent) -> tuple[Done, list[Sent]]:
    turn = RunningTurn(application(routing), event)
    return turn.run(), turn.outcome.sends


def error(caplog: pytest.LogCaptureFixture) -> str:
    """Return the error that a consumer ended with."""
    (record,) = caplog.records
    assert record.exc_info
    assert isinstance(record.exc_info[1], AsgictlError)
    return str(record.exc_info[1])


def only(channel: str, *sends: dict[str, Any]) -> list[Any]:
    return [route(channel, lambda message: [message.reply_channel.send(each) for each in sends])]


@pytest.mark.parametrize(
    ("sends", "accept", "close", "frames"),
    [
        ([{"accept": True}], Accept(None, []), None, []),
        ([{"text": "hi"}], Accept(None, []), None, ["hi"]),
        ([{"accept": True, "bytes": b"x"}, {"text": "y"}], Accept(None, []), None, [b"x", "y"]),
        ([{"close": True}], None, Close(1000, ""), []),
        ([{"close": 4001}], None, Close(4001, ""), []),
        ([{"accept": False}], None, Close(1000, ""), []),
    ],
)
def test_a_handshake_is_answered_as_there(
    sends: list[dict[str, Any]], accept: Accept | None, close: Close | None, frames: list[Any]
) -> None:
    done, _ = ran(only("websocket.connect", *sends), CONNECT)
    assert (done.accept, done.close, done.frames) == (accept, close, frames)
    assert done.joins == [OWN], "its reply channel reaches it from everywhere"


def test_a_handshake_that_no_route_is_for_is_accepted_and_one_that_no_route_matches_is_not() -> None:
    assert ran([route("websocket.receive", print)], CONNECT)[0].accept == Accept(None, [])
    done, _ = ran([route("websocket.connect", print, path="^/other")], CONNECT)
    assert (done.accept, done.close) == (None, Close(1000, ""))


def test_a_message_has_the_keys_of_its_kind() -> None:
    seen: list[Message] = []
    for kind, event in (("connect", CONNECT), ("receive", receive("t", b"b")), ("disconnect", DISCONNECT)):
        ran([route(f"websocket.{kind}", seen.append)], event)
    both: dict[str, Any] = {
        "reply_channel": OWN,
        "path": "/chat/hall/",
        "root_path": "/sub",
        "scheme": "ws",
        "query_string": b"a=b",
    }
    both |= {"headers": HEADERS, "client": ("c", 1), "server": None}
    assert [each.content for each in seen] == [
        both | more for more in ({}, {"text": "t"}, {"bytes": b"b"}, {"code": 1001})
    ]
    text = seen[1]
    assert (text["text"], text.get("bytes"), "bytes" in text, set(text.keys())) == ("t", None, False, {*both, "text"})
    assert (str(text.channel), str(text.reply_channel)) == ("websocket.receive", OWN)


def test_routes_match_by_regular_expressions_and_includes_cut_off_what_they_match() -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    rooms = [
        route("websocket.receive", lambda message, **found: seen.append(("no", found)), path=r"^/hall$"),
        route(
            "websocket.receive", lambda message, **found: seen.append((message["path"], found)), path=r"^/(?P<r>\w+)/$"
        ),
        route("websocket.receive", lambda message, **found: seen.append(("late", found))),
    ]
    ran([include(rooms, path=r"^/other"), include(rooms, path=r"^/(?P<app>chat)")], receive("x"))
    assert seen == [("/chat/hall/", {"app": "chat", "r": "hall"})]


def test_names_of_modules_stand_for_routes_and_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("users_routing")
    module.consumer = lambda message: message.reply_channel.send({"text": "found"})  # type: ignore[attr-defined]
    module.routing = [route("websocket.receive", module.consumer)]  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "users_routing", module)
    for routing in ("users_routing.routing", {"websocket.receive": "users_routing.consumer"}):
        assert ran(routing, receive("x"))[0].frames == ["found"]


def test_groups_and_the_session_belong_to_the_connection() -> None:
    @enforce_ordering(slight=True)  # type: ignore[untyped-decorator]  # with arguments or without
    @channel_session
    def said(message: Any) -> None:
        message.channel_session["n"] = message.channel_session.get("n", 0) + 1
        Group("in").add(message.reply_channel)
        Group("out").discard(message.content["reply_channel"])
        Group("in").send({"text": message["text"]})

    done, sends = ran([route("websocket.receive", said)], receive("a", "b", state={"n": 5}))
    assert decode_state(done.state) == {"n": 7}
    assert (done.joins, done.leaves) == (["in", "in"], ["out", "out"])
    assert sends == [Broadcast("in", "a"), Broadcast("in", "b")]


def test_decorators_leave_a_consumer_as_it_is() -> None:
    def consumer(message: Any) -> None:
        """Theirs."""

    for decorated in (enforce_ordering(consumer), enforce_ordering(slight=True)(consumer)):
        assert decorated is consumer
    assert channel_session(consumer) is channel_session_user_from_http(consumer) is consumer


def test_what_carries_its_own_reply_channel_runs_next_in_the_same_turn() -> None:
    ran_: list[str] = []

    def receives(message: Any) -> None:
        for command in message["text"]:
            Channel("chat").send({"reply_channel": message.content["reply_channel"], "command": command})
        ran_.append("received")

    def joins(message: Any) -> None:
        ran_.append("joined " + message["command"])
        message.channel_session["joined"] = True
        Group("g").add(message.reply_channel)
        message.reply_channel.send({"text": "welcome"})

    routing = [route("websocket.receive", receives), route("chat", joins, command="^[jk]$")]
    done, sends = ran(routing, receive("jxk"))
    assert ran_ == ["received", "joined j", "joined k"]
    assert (decode_state(done.state), done.joins, done.frames) == ({"joined": True}, ["g", "g"], ["welcome"] * 2)
    assert sends == []


def test_what_does_not_is_background_work() -> None:
    def receives(message: Any) -> None:
        Channel("chat").send({"to": message.content["reply_channel"]})

    def works(message: Any, found: str) -> None:
        Channel(message["to"]).send({"text": str(message.channel)})
        assert message.reply_channel is None

    made = application([route("websocket.receive", receives), route("chat", works, to=r"(?P<found>reply!)")])
    turn = RunningTurn(made, receive("x"))
    turn.run()
    (job,) = turn.outcome.sends
    assert isinstance(job, Job)
    running = RunningJob(made, job)
    running.run()
    assert running.outcome.sends == [Broadcast(OWN, "chat")], "its own group, of which it is the only member"


@pytest.mark.parametrize(
    ("consumer", "says"),
    [
        (lambda m: m.channel_session, "has a session and a user only when"),
        (lambda m: m.user, "has a session and a user only when"),
        (lambda m: Group("g").add(m["to"]), "only a consumer of the connection reply!i/9"),
        (lambda m: Channel(m["to"]).send({"close": True}), "text or bytes, not ['close']"),
        (lambda m: Channel(m["to"]).send({"text": "x", "close": True}), "text or bytes, not"),
        (lambda m: Group("g" * 101).send({"text": "x"}), "1 to 100 characters"),
        (lambda m: Channel("a!b").send({}), "a channel's name must be"),
        (lambda m: Channel("chats").send({}), "no background channel 'chats', it has chat"),
    ],
)
def test_what_a_job_cannot_do_is_an_error_that_says_what_to_do(
    consumer: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = application([route("chat", consumer)])
    RunningJob(made, Job("j", 1, "chat", encode_state({"to": "reply!i/9"}))).run()
    assert says in error(caplog)


@pytest.mark.parametrize(
    ("event", "consumer", "says"),
    [
        (CONNECT, lambda m: None, "called neither accept() nor close()"),
        (DISCONNECT, lambda m: m.reply_channel.send({"text": "bye"}), "the connection is closed"),
        (DISCONNECT, lambda m: Channel("chats").send({"reply_channel": OWN}), "no background channel 'chats'"),
        (DISCONNECT, lambda m: Group("g").add("reply!i/9"), "only a consumer of the connection reply!i/9"),
        (DISCONNECT, lambda m: m.user, "it needs django.contrib.sessions"),
    ],
)
def test_what_a_connection_cannot_do_is_an_error_that_says_what_to_do(
    event: TurnEvent, consumer: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran([route(event.channel, consumer)], event)
    assert says in error(caplog)


async def coroutine(message: Any) -> None:
    """No consumer of Channels 1."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: [route("http.request", print)], "no consumer takes requests"),
        (lambda: [route("websocket.connect", "nowhere.at_all")], "'nowhere.at_all' in a routing list"),
        (lambda: [route("websocket.connect", Message)], "a consumer must be a function, not a class"),
        (lambda: [route("websocket.connect", coroutine)], "or an async def"),
        (lambda: [route("websocket.connect", print, path="(")], "has an invalid pattern"),
        (lambda: [("websocket.connect", print)], "holds route(...) and include(...)"),
        (lambda: [route("a b", print)], "a channel's name must be"),
        (lambda: "nowhere.at_all", "cannot be imported"),
    ],
)
def test_a_routing_list_that_cannot_serve_is_an_error(make: Any, says: str) -> None:
    with pytest.raises(TargetError) as caught:
        application(make())
    assert says in str(caught.value)


def test_requests_go_to_the_application_that_is_given() -> None:
    made = application([], http=print)
    assert isinstance(made, Application)
    assert made.mount("/") is print
