"""One WebSocket, between a fake server and a fake host."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.interface.consumer_socket import ConsumerSocket, travelling
from asgictl.interface.groups import Groups
from asgictl.interface.outbox import denial
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.manifest import Path
from asgictl.wire.messages import Accept, Broadcast, Close, Connect, Disconnect, Done, Frame, Receive, TurnEvent
from tests.conftest import scenario
from tests.interface.conftest import settled

ASGIMessage = MutableMapping[str, Any]
EVERY = Path("/ws", True, True, True)
ONCE = Path("/ws", True, True, True, at_most_once=True)
DENIAL: dict[str, Any] = {"websocket.http.response": {}}
OPEN = Accept(None, [])


class Socket:
    """A socket, its host, and the server's side of it."""

    def __init__(
        self, path: Path = EVERY, extensions: dict[str, Any] | None = None, headers: Any = (), **limits: Any
    ) -> None:
        self.groups = Groups()
        self.limits = Limits(**limits)
        self.figures = Figures()
        self.shed = Rejections()
        self.skips = 0
        self.given_up: list[tuple[TurnEvent, str]] = []
        self.events: list[TurnEvent] = []
        self.ended = False
        self.sent: list[ASGIMessage] = []
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.heard = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.broken = False
        scope = {"path": "/ws", "headers": list(headers), "extensions": extensions or {}}
        self.socket = ConsumerSocket("i/1", scope, path, self, self.send)
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.create_task(self.socket.run(self.incoming.get))

    def submit(self, socket: ConsumerSocket, event: TurnEvent) -> None:
        assert socket is self.socket
        self.events.append(event)

    def skip(self, socket: ConsumerSocket) -> None:
        self.skips += 1

    def give_up(self, socket: ConsumerSocket, event: TurnEvent, reason: str) -> None:
        self.given_up.append((event, reason))

    def closed(self, socket: ConsumerSocket) -> None:
        self.ended = True

    async def send(self, message: ASGIMessage) -> None:
        await self.writable.wait()
        if self.broken:
            raise BrokenPipeError
        self.sent.append(message)
        self.heard.set()

    async def says(self, *frames: Frame) -> None:
        for frame in frames:
            text, data = (frame, None) if isinstance(frame, str) else (None, frame)
            self.incoming.put_nowait({"type": "websocket.receive", "text": text, "bytes": data})
        await settled()

    async def leaves(self, code: int | None = 1001) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})
        await settled()

    async def answers(self, *frames: Frame, number: int | None = None, **produced: Any) -> None:
        """The turn in flight is committed with this outcome."""
        done = {"state": b"", "accept": None, "close": None, "joins": [], "leaves": [], **produced}
        position = done.pop("position", None)
        self.socket.done(Done("i/1", number or self.events[-1].number, list(frames), **done), position)
        await settled()

    async def opens(self) -> None:
        await settled()
        await self.answers(accept=OPEN)

    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]

    def frames(self) -> list[Frame]:
        return [message.get("text", message.get("bytes")) for message in self.sent if message["type"].endswith(".send")]


@scenario
async def test_a_handshake_waits_for_its_consumer() -> None:
    socket = Socket()
    await settled()
    assert isinstance(socket.events[0], Connect)
    assert socket.sent == []
    await socket.answers("welcome", accept=Accept("chat", [(b"a", b"b")]))
    assert socket.sent == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"a", b"b")]},
        {"type": "websocket.send", "text": "welcome"},
    ]
    await socket.leaves()


@scenario
async def test_a_path_without_a_connect_consumer_accepts_at_once() -> None:
    socket = Socket(Path("/ws", False, True, False))
    await settled()
    assert socket.types() == ["accept"]
    assert socket.events == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_has_its_status_where_the_server_can_tell_it(status: int) -> None:
    async def refused(extensions: dict[str, Any]) -> list[ASGIMessage]:
        socket = Socket(extensions=extensions)
        await settled()
        await socket.answers(close=Close(1000, "", status))
        await socket.leaves(1006)
        assert socket.ended
        assert len(socket.events) == 1, "nobody accepted, so nobody hears of the end"
        return socket.sent

    start, body = asyncio.run(refused(DENIAL))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body == {"type": "websocket.http.response.body", "body": b""}
    assert asyncio.run(refused({})) == [{"type": "websocket.close"}]


def test_503_alone_says_when_to_try_again() -> None:
    assert (b"retry-after", b"1") in denial(Close(1000, "", 503), True)[0]["headers"]
    assert (b"retry-after", b"1") not in denial(Close(1000, "", 404), True)[0]["headers"]


@scenario
async def test_a_handshake_that_nobody_answers_is_refused_with_503_and_a_late_answer_is_no_socket() -> None:
    socket = Socket(extensions=DENIAL, connect_deadline_seconds=0)
    await socket.heard.wait()
    assert socket.sent[0]["status"] == 503
    await settled()
    await socket.answers("late", accept=OPEN)
    assert "accept" not in socket.types()
    assert socket.frames() == []
    assert isinstance(socket.events[-1], Disconnect), "the consumer accepted, so it hears of the end"
    assert sum(socket.shed.tell().values()) == 1


@scenario
async def test_a_client_gone_during_connect_still_gets_its_disconnect_if_the_consumer_accepted() -> None:
    socket = Socket()
    await settled()
    await socket.leaves(None)
    assert not socket.ended
    await socket.answers("late", accept=OPEN, joins=["g"])
    last = socket.events[-1]
    assert isinstance(last, Disconnect)
    assert last.code == 1006
    assert socket.sent == []
    await socket.answers()
    assert socket.ended


@scenario
async def test_a_client_gone_during_connect_is_forgotten_if_the_consumer_refused() -> None:
    socket = Socket()
    await settled()
    await socket.leaves()
    await socket.answers(close=Close(1000, ""))
    assert socket.ended
    assert len(socket.events) == 1


@scenario
async def test_frames_run_in_order_one_turn_at_a_time() -> None:
    socket = Socket(turn_frames=2)
    await socket.opens()
    await socket.says("a", b"b", "c", "d")
    turns: list[list[Frame]] = []
    while len(socket.events) > 1 + len(turns):
        event = socket.events[-1]
        assert isinstance(event, Receive)
        turns.append(event.frames)
        await socket.answers(*event.frames)
    assert turns == [["a"], [b"b", "c"], ["d"]]
    assert socket.frames() == ["a", b"b", "c", "d"]
    await socket.leaves()


@scenario
async def test_an_empty_text_frame_is_a_frame() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("")
    event = socket.events[-1]
    assert isinstance(event, Receive)
    assert event.frames == [""]


@scenario
async def test_a_full_inbox_stops_reading_until_there_is_room() -> None:
    socket = Socket(inbox_frames=2, turn_frames=1)
    await socket.opens()
    await socket.says("a", "b", "c", "d", "e")
    assert socket.incoming.qsize() == 2, "one runs, two wait, two stay with the server"
    await socket.answers()
    assert socket.incoming.qsize() == 1
    await socket.answers()
    await socket.answers()
    await socket.answers()
    await socket.answers()
    ran = [frame for event in socket.events if isinstance(event, Receive) for frame in event.frames]
    assert ran == ["a", "b", "c", "d", "e"]


@scenario
async def test_frames_received_before_the_end_run_before_the_disconnect() -> None:
    socket = Socket(turn_frames=1)
    await socket.opens()
    await socket.says("a", "b")
    await socket.leaves(4000)
    assert len(socket.events) == 2
    await socket.answers()
    await socket.answers()
    assert [type(event) for event in socket.events] == [Connect, Receive, Receive, Disconnect]
    await socket.answers()
    assert socket.ended


@scenario
async def test_a_consumers_close_drops_the_frames_that_came_later() -> None:
    socket = Socket(turn_frames=1, inbox_frames=2)
    await socket.opens()
    await socket.says("a", "b", "c", "d")
    await socket.answers("bye", close=Close(4000, "enough"))
    assert socket.sent[-2:] == [
        {"type": "websocket.send", "text": "bye"},
        {"type": "websocket.close", "code": 4000, "reason": "enough"},
    ]
    await socket.says("e")
    await socket.leaves(4000)
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]
    assert socket.running.done()


@scenario
async def test_accept_and_close_in_one_turn_open_and_close_the_socket() -> None:
    socket = Socket()
    await settled()
    await socket.answers("hello", accept=OPEN, close=Close(1000, ""))
    assert socket.types() == ["accept", "send", "close"]
    assert isinstance(socket.events[-1], Disconnect)


@scenario
async def test_a_slow_reader_is_closed_with_1013() -> None:
    socket = Socket(outbox_bytes=10)
    await socket.opens()
    socket.writable.clear()
    for frame in ("x" * 8, "y" * 8, "z"):
        socket.socket.deliver(frame)
    socket.writable.set()
    await settled()
    assert socket.frames() == ["x" * 8]
    assert (socket.sent[-1]["type"], socket.sent[-1]["code"]) == ("websocket.close", 1013)
    assert isinstance(socket.events[-1], Disconnect)
    assert list(socket.shed.tell()) == ["sockets closed with 1013: they read too slowly"]


@scenario
async def test_what_may_be_dropped_is_dropped_for_the_slow_reader_alone_and_counted() -> None:
    slow, quick = Socket(outbox_bytes=10), Socket(outbox_bytes=10)
    for position, socket in enumerate((slow, quick)):
        await socket.opens()
        slow.groups.join("g", socket.socket, (position, 0))
    slow.writable.clear()
    for number in range(5):
        slow.groups.deliver(Broadcast("g", f"{number}" * 6, may_drop=True), (9, number))
        await settled()
    slow.writable.set()
    await settled()
    slow.groups.deliver(Broadcast("g", "later", may_drop=True), (10, 0))
    await settled()
    assert slow.frames() == ["0" * 6, "later"]
    assert quick.frames() == [*(f"{number}" * 6 for number in range(5)), "later"]
    assert slow.shed.tell() == {"group frames dropped: their sockets read too slowly": 4}
    assert "close" not in slow.types()


@scenario
async def test_a_page_of_another_origin_is_refused_with_403_and_no_consumer_hears_of_it() -> None:
    socket = Socket(extensions=DENIAL, headers=[(b"host", b"us"), (b"origin", b"http://them")])
    await settled()
    start, body = socket.sent
    assert start["status"] == 403
    assert b"--allowed-origins" in body["body"]
    await socket.leaves(1006)
    assert socket.events == []
    assert socket.ended
    assert socket.shed.tell() == {"handshakes refused with 403: their Origin is not allowed": 1}


@scenario
async def test_a_page_of_an_allowed_origin_is_served() -> None:
    headers = [(b"host", b"us"), (b"origin", b"http://them")]
    socket = Socket(Path("/ws", False, True, False), headers=headers, allowed_origins=("http://them",))
    await settled()
    assert socket.types() == ["accept"]


@scenario
async def test_a_frame_larger_than_the_whole_outbox_is_still_sent() -> None:
    socket = Socket(outbox_bytes=10)
    await socket.opens()
    socket.socket.deliver("x" * 100)
    await settled()
    assert socket.frames() == ["x" * 100]


@scenario
async def test_a_client_that_left_is_written_to_no_more() -> None:
    socket = Socket()
    await socket.opens()
    socket.broken = True
    socket.socket.deliver("a")
    await settled()
    socket.broken = False
    socket.socket.deliver("b")
    await settled()
    assert socket.frames() == []
    await socket.leaves()
    assert isinstance(socket.events[-1], Disconnect)


@scenario
async def test_a_late_reply_is_ignored() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("a")
    await socket.answers("late", number=1, close=Close(1000, ""))
    assert socket.types() == ["accept"]
    await socket.answers("in time")
    await socket.answers("twice")
    assert socket.frames() == ["in time"]


@scenario
async def test_a_turn_s_own_frames_of_groups_are_for_who_was_a_member_before_it() -> None:
    socket = Socket()
    await settled()
    await socket.answers(accept=OPEN, joins=["in"], position=(5, 0))
    await socket.says("x")
    await socket.answers("reply", joins=["new"], leaves=["in"], own=[("in", "a"), ("new", "b"), ("in", b"c")])
    await settled()
    assert socket.frames() == ["reply", "a", b"c"]


@scenario
async def test_a_member_receives_what_stands_behind_its_join_until_it_leaves() -> None:
    socket = Socket()
    await settled()
    await socket.answers(accept=OPEN, joins=["g", "h"], position=(5, 0))
    for group, position in (("g", 5), ("g", 6), ("h", 7)):
        socket.groups.deliver(Broadcast(group, f"{group}{position}"), (position, 0))
    await socket.says("x")
    await socket.answers(leaves=["g"])
    socket.groups.deliver(Broadcast("g", "g8"), (8, 0))
    await settled()
    assert socket.frames() == ["g6", "h7"]
    await socket.leaves()
    assert socket.groups._members == {}


@scenario
async def test_a_join_after_the_end_leaves_no_member_behind() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("x")
    await socket.leaves()
    await socket.answers(joins=["g"])
    assert socket.groups._members == {}


def test_what_travels_has_defaults_for_what_a_server_may_leave_out() -> None:
    scope = travelling({"path": "/é", "headers": [[b"a", b"b"]], "client": ["h", 1]})
    assert scope.raw_path == "/é".encode()
    assert travelling({"path": "/100%41", "headers": []}).raw_path == b"/100%2541"
    assert (scope.method, scope.headers, scope.client, scope.server) == ("", [(b"a", b"b")], ("h", 1), None)


@scenario
async def test_a_turn_whose_worker_died_is_sent_again_and_its_output_counts_once() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("a")
    again = socket.socket.lost(True)
    assert isinstance(again, Receive)
    assert (again.number, again.attempt) == (2, 2)
    await socket.answers("b", number=2)
    await socket.answers("b", number=2)
    assert socket.frames() == ["b"]
    await socket.leaves()


@scenario
async def test_a_turn_that_kills_workers_closes_with_1011_and_takes_what_waits_along() -> None:
    socket = Socket(attempts=2)
    await socket.opens()
    await socket.says("a", "b")
    assert [bool(socket.socket.lost(True)) for _ in range(2)] == [True, False]
    await settled()
    assert (socket.sent[-1]["type"], socket.sent[-1]["code"]) == ("websocket.close", 1011)
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]
    await socket.answers()
    assert socket.ended


ENDED = pytest.mark.parametrize(("path", "attempts"), [(EVERY, 1), (ONCE, 3)], ids=["kills workers", "at most once"])


@ENDED
@scenario
async def test_a_handshake_that_is_not_run_again_is_refused_with_500(path: Path, attempts: int) -> None:
    socket = Socket(path, DENIAL, attempts=attempts)
    await settled()
    assert socket.socket.lost(True) is None
    await settled()
    assert socket.sent[0]["status"] == 500
    assert socket.ended


@ENDED
@scenario
async def test_a_farewell_that_is_not_run_again_ends_the_socket(path: Path, attempts: int) -> None:
    socket = Socket(path, attempts=attempts)
    await socket.opens()
    await socket.leaves()
    assert isinstance(socket.events[-1], Disconnect)
    assert socket.socket.lost(True) is None
    assert socket.ended


@scenario
async def test_a_handshake_whose_client_left_before_any_worker_took_it_ends_and_nobody_hears_of_it() -> None:
    socket = Socket()
    await settled()
    await socket.leaves()
    assert socket.skips == 1
    assert not socket.ended, "a worker may have it"
    socket.socket.skipped()
    assert socket.ended
    assert [type(event) for event in socket.events] == [Connect]
    assert socket.socket._deadline is not None
    assert socket.socket._deadline.cancelled()


@scenario
async def test_a_handshake_whose_client_left_is_not_counted_as_one_that_no_worker_answered() -> None:
    socket = Socket(connect_deadline_seconds=0)
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await settled()
    assert socket.shed.tell() == {}
    assert socket.skips == 1


@scenario
async def test_a_socket_that_is_open_is_not_skipped() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("a")
    await socket.leaves()
    assert socket.skips == 0


@scenario
async def test_a_client_whose_frames_no_worker_takes_in_time_is_closed_with_1013() -> None:
    socket = Socket(inbox_frames=1, turn_frames=1, inbox_deadline_seconds=0)
    await socket.opens()
    socket.heard.clear()
    await socket.says("a", "b", "c")
    await socket.heard.wait()
    assert (socket.sent[-1]["type"], socket.sent[-1]["code"]) == ("websocket.close", 1013)
    assert list(socket.shed.tell()) == ["sockets closed with 1013: no worker took their frames in time"]
    await socket.leaves()
    assert socket.running.done(), "what comes after is read, or its leaving would not be heard"
    await socket.answers()
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]


@scenario
async def test_frames_that_do_not_wait_for_their_turns_commit_come_before_it() -> None:
    socket = Socket()
    await settled()
    socket.socket.deliver_all(["too early: the socket is not open"])
    await socket.answers(accept=OPEN)
    await socket.says("a")
    socket.socket.deliver_all(["progress", b"more"])
    await socket.answers("done")
    assert socket.frames() == ["progress", b"more", "done"]
    await socket.leaves()
    socket.socket.deliver_all(["too late"])
    await settled()
    assert len(socket.frames()) == 3


@scenario
async def test_an_at_most_once_turn_whose_worker_died_is_given_up_and_the_next_frame_goes_on() -> None:
    socket = Socket(ONCE)
    await socket.opens()
    await socket.says("a", "b")
    assert not socket.socket.repeatable
    assert socket.socket.lost(True) is None
    await settled()
    assert socket.types() == ["accept"], "the socket stays open"
    assert [(event.number, reason) for event, reason in socket.given_up] == [(2, "its worker died, attempt 1")]
    assert [event.frames for event in socket.events if isinstance(event, Receive)] == [["a"], ["b"]]
    await socket.answers("b")
    assert socket.frames() == ["b"]
    await socket.leaves()


@scenario
async def test_an_at_most_once_turn_that_had_not_started_is_sent_again() -> None:
    socket = Socket(ONCE)
    await socket.opens()
    await socket.says("a")
    assert socket.socket.lost(False) == socket.events[-1]
    assert socket.given_up == []
    await socket.leaves()


@scenario
async def test_a_turn_that_was_given_up_is_told_of_once() -> None:
    socket = Socket(attempts=1)
    await socket.opens()
    await socket.says("a")
    event = socket.events[-1]
    assert socket.socket.lost(True) is None
    assert [given_up for given_up, _ in socket.given_up] == [event]
    await socket.answers("late", number=2)
    assert socket.frames() == []


@scenario
async def test_a_socket_waits_for_room_in_redis() -> None:
    socket = Socket()
    await settled()
    assert socket.socket.refused(False)
    await socket.leaves()


@scenario
async def test_a_turn_that_redis_refuses_for_good_ends_its_socket() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("a")
    event = socket.events[-1]
    assert not socket.socket.refused(True)
    assert [given_up for given_up, _ in socket.given_up] == [event]
    await settled()
    assert socket.sent[-1] == {"type": "websocket.close", "code": 1011, "reason": ""}
    assert isinstance(socket.events[-1], Disconnect)
    assert not socket.socket.refused(True)
    assert socket.ended


def test_a_turns_time_begins_when_the_oldest_of_its_frames_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("asgictl.interface.consumer_socket.perf_counter", lambda: now)

    @scenario
    async def turns() -> None:
        nonlocal now
        socket = Socket()
        await socket.opens()
        figures = socket.figures = Figures()
        await socket.says("first")
        now = 101.0
        await socket.says("waits")
        now = 103.0
        await socket.says("waits too")
        await socket.answers()
        assert figures.turn_seconds[-1] == 3
        now = 104.0
        await socket.answers()
        assert figures.turn_seconds[-1] == 3 + 3

    turns()
