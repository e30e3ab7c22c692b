"""One WebSocket, between a client that notes what it is told and a fake host."""

from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.interface.consumer_socket import ConsumerSocket
from asgictl.interface.groups import Groups
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.manifest import Path
from asgictl.wire.messages import (
    Accept,
    Broadcast,
    Close,
    Connect,
    Disconnect,
    Done,
    Frame,
    Headers,
    Receive,
    Scope,
    TurnEvent,
)
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.fakes import RecordingSocket

EVERY = Path("/ws", True, True, True)
ONCE = Path("/ws", True, True, True, at_most_once=True)
OPEN = Accept(None, [])


class Socket:
    """A socket, its host, and its client."""

    def __init__(self, path: Path = EVERY, headers: Headers | None = None, **limits: Any) -> None:
        self.groups = Groups()
        self.limits = Limits(**limits)
        self.figures = Figures()
        self.rejections = Rejections()
        self.skips = 0
        self.given_up: list[tuple[TurnEvent, str]] = []
        self.events: list[TurnEvent] = []
        self.ended = False
        self.is_quiesced = False
        self.client = RecordingSocket()
        self.unread: list[Frame] = []  # what the client sent while it was not to be read
        scope = Scope("", "ws", "1.1", "", "/ws", b"/ws", b"", headers or [], None, None)
        self.socket = ConsumerSocket("i/1", scope, path, self, self.client)
        self.socket.open()

    def submit(self, socket: ConsumerSocket, event: TurnEvent) -> None:
        assert socket is self.socket
        self.events.append(event)

    def holds_back(self, socket: ConsumerSocket) -> bool:
        assert socket is self.socket
        return self.is_quiesced

    def skip(self, socket: ConsumerSocket) -> None:
        self.skips += 1

    def give_up(self, socket: ConsumerSocket, event: TurnEvent, reason: str) -> None:
        self.given_up.append((event, reason))

    def closed(self, socket: ConsumerSocket) -> None:
        self.ended = True

    def says(self, *frames: Frame) -> None:
        self.unread += frames
        self._read()

    def _read(self) -> None:
        while self.unread and self.client.is_open and not self.client.is_held:
            self.socket.receive(self.unread.pop(0))

    def leaves(self, code: int = 1001) -> None:
        self.client.is_open = False
        self.socket.left(code, "")

    def answers(self, *frames: Frame, number: int | None = None, **produced: Any) -> None:
        """The turn in flight is committed with this outcome."""
        done = {"state": b"", "accept": None, "close": None, "joins": [], "leaves": [], **produced}
        position = done.pop("position", None)
        self.socket.answer(Done("i/1", number or self.events[-1].number, list(frames), **done), position)
        self._read()

    def opens(self) -> None:
        self.answers(accept=OPEN)


@scenario
async def test_a_handshake_waits_for_its_consumer() -> None:
    socket = Socket()
    assert isinstance(socket.events[0], Connect)
    assert socket.client.sent == []
    socket.answers("welcome", accept=Accept("chat", [(b"a", b"b")]))
    assert socket.client.sent == [Accept("chat", [(b"a", b"b")]), "welcome"]
    socket.leaves()


@scenario
async def test_a_path_without_a_connect_consumer_accepts_at_once() -> None:
    socket = Socket(Path("/ws", False, True, False))
    assert socket.client.kinds() == ["accept"]
    assert socket.events == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
@scenario
async def test_a_refusal_is_the_consumers_and_nobody_hears_of_the_end(status: int) -> None:
    socket = Socket()
    refusal = Close(1000, "", status, [(b"a", b"b")], b"why")
    socket.answers(close=refusal)
    socket.leaves(1006)
    assert socket.client.sent == [refusal]
    assert socket.ended
    assert len(socket.events) == 1, "nobody accepted"


@scenario
async def test_a_handshake_that_nobody_answers_is_refused_with_503_and_a_late_answer_is_no_socket() -> None:
    socket = Socket(connect_deadline_seconds=0)
    await socket.client.ended.wait()
    assert socket.client.closed.status == 503
    socket.answers("late", accept=OPEN)
    assert socket.client.kinds() == ["close"]
    assert isinstance(socket.events[-1], Disconnect), "the consumer accepted, so it hears of the end"
    assert sum(socket.rejections.snapshot().values()) == 1


@scenario
async def test_a_client_gone_during_connect_still_gets_its_disconnect_if_the_consumer_accepted() -> None:
    socket = Socket()
    socket.leaves(1006)
    assert not socket.ended
    socket.answers("late", accept=OPEN, joins=["g"])
    last = socket.events[-1]
    assert isinstance(last, Disconnect)
    assert last.code == 1006
    assert socket.client.sent == []
    socket.answers()
    assert socket.ended


@scenario
async def test_a_client_gone_during_connect_is_forgotten_if_the_consumer_refused() -> None:
    socket = Socket()
    socket.leaves()
    socket.answers(close=Close(1000, ""))
    assert socket.ended
    assert len(socket.events) == 1


@scenario
async def test_frames_run_in_order_one_turn_at_a_time() -> None:
    socket = Socket(turn_frames=2)
    socket.opens()
    socket.says("a", b"b", "c", "d")
    turns: list[list[Frame]] = []
    while len(socket.events) > 1 + len(turns):
        event = socket.events[-1]
        assert isinstance(event, Receive)
        turns.append(event.frames)
        socket.answers(*event.frames)
    assert turns == [["a"], [b"b", "c"], ["d"]]
    assert socket.client.frames == ["a", b"b", "c", "d"]
    socket.leaves()


@scenario
async def test_an_empty_text_frame_is_a_frame() -> None:
    socket = Socket()
    socket.opens()
    socket.says("")
    event = socket.events[-1]
    assert isinstance(event, Receive)
    assert event.frames == [""]


@scenario
async def test_a_full_inbox_stops_reading_until_there_is_room() -> None:
    socket = Socket(inbox_frames=2, turn_frames=1)
    socket.opens()
    socket.says("a", "b", "c", "d", "e")
    assert len(socket.unread) == 2, "one runs, two wait, two stay with the server"
    socket.answers()
    assert len(socket.unread) == 1
    socket.answers()
    socket.answers()
    socket.answers()
    socket.answers()
    ran = [frame for event in socket.events if isinstance(event, Receive) for frame in event.frames]
    assert ran == ["a", "b", "c", "d", "e"]


@scenario
async def test_frames_received_before_the_end_run_before_the_disconnect() -> None:
    socket = Socket(turn_frames=1)
    socket.opens()
    socket.says("a", "b")
    socket.leaves(4000)
    assert len(socket.events) == 2
    socket.answers()
    socket.answers()
    assert [type(event) for event in socket.events] == [Connect, Receive, Receive, Disconnect]
    socket.answers()
    assert socket.ended


@scenario
async def test_a_consumers_close_drops_the_frames_that_came_later() -> None:
    socket = Socket(turn_frames=1, inbox_frames=2)
    socket.opens()
    socket.says("a", "b", "c", "d")
    socket.answers("bye", close=Close(4000, "enough"))
    assert socket.client.sent[-2:] == ["bye", Close(4000, "enough")]
    assert not socket.client.is_held, "its answer to the close is to be read"
    socket.says("e")
    socket.leaves(4000)
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]


@scenario
async def test_accept_and_close_in_one_turn_open_and_close_the_socket() -> None:
    socket = Socket()
    socket.answers("hello", accept=OPEN, close=Close(1000, ""))
    assert socket.client.kinds() == ["accept", "frame", "close"]
    assert isinstance(socket.events[-1], Disconnect)


@scenario
async def test_a_slow_reader_is_closed_with_1013() -> None:
    socket = Socket(outbox_bytes=10)
    socket.opens()
    for frame in ("x" * 8, "y" * 8, "z"):
        socket.socket.deliver(frame)
        socket.client.waiting_bytes += len(frame)
    assert socket.client.frames == ["x" * 8]
    assert socket.client.closed.code == 1013
    assert isinstance(socket.events[-1], Disconnect)
    assert list(socket.rejections.snapshot()) == ["sockets closed with 1013: the client reads too slowly"]


@scenario
async def test_what_may_be_dropped_is_dropped_for_the_slow_reader_alone_and_counted() -> None:
    slow, quick = Socket(outbox_bytes=10), Socket(outbox_bytes=10)
    for position, socket in enumerate((slow, quick)):
        socket.opens()
        slow.groups.join("g", socket.socket, (position, 0))
    for number in range(5):
        slow.groups.deliver(Broadcast("g", f"{number}" * 6, may_drop=True), (9, number))
        slow.client.waiting_bytes = 6
    slow.client.waiting_bytes = 0
    slow.groups.deliver(Broadcast("g", "later", may_drop=True), (10, 0))
    assert slow.client.frames == ["0" * 6, "later"]
    assert quick.client.frames == [*(f"{number}" * 6 for number in range(5)), "later"]
    assert slow.rejections.snapshot() == {"group frames dropped: the client reads too slowly": 4}
    assert "close" not in slow.client.kinds()


@scenario
async def test_a_page_of_another_origin_is_refused_with_403_and_no_consumer_hears_of_it() -> None:
    socket = Socket(headers=[(b"host", b"us"), (b"origin", b"http://them")])
    assert (socket.client.closed.status, socket.client.kinds()) == (403, ["close"])
    assert b"--allowed-origins" in socket.client.closed.body
    socket.leaves(1006)
    assert socket.events == []
    assert socket.ended
    assert socket.rejections.snapshot() == {"handshakes rejected with 403: Origin not allowed": 1}


@scenario
async def test_a_page_of_an_allowed_origin_is_served() -> None:
    headers = [(b"host", b"us"), (b"origin", b"http://them")]
    socket = Socket(Path("/ws", False, True, False), headers=headers, allowed_origins=("http://them",))
    assert socket.client.kinds() == ["accept"]


@scenario
async def test_a_frame_larger_than_the_whole_outbox_is_still_sent() -> None:
    socket = Socket(outbox_bytes=10)
    socket.opens()
    socket.socket.deliver("x" * 100)
    assert socket.client.frames == ["x" * 100]


@scenario
async def test_a_late_reply_is_ignored() -> None:
    socket = Socket()
    socket.opens()
    socket.says("a")
    socket.answers("late", number=1, close=Close(1000, ""))
    assert socket.client.kinds() == ["accept"]
    socket.answers("in time")
    socket.answers("twice")
    assert socket.client.frames == ["in time"]


@scenario
async def test_a_turn_s_own_frames_of_groups_are_for_who_was_a_member_before_it() -> None:
    socket = Socket()
    socket.answers(accept=OPEN, joins=["in"], position=(5, 0))
    socket.says("x")
    socket.answers("reply", joins=["new"], leaves=["in"], own=[("in", "a"), ("new", "b"), ("in", b"c")])
    assert socket.client.frames == ["reply", "a", b"c"]


@scenario
async def test_a_member_receives_what_stands_behind_its_join_until_it_leaves() -> None:
    socket = Socket()
    socket.answers(accept=OPEN, joins=["g", "h"], position=(5, 0))
    for group, position in (("g", 5), ("g", 6), ("h", 7)):
        socket.groups.deliver(Broadcast(group, f"{group}{position}"), (position, 0))
    socket.says("x")
    socket.answers(leaves=["g"])
    socket.groups.deliver(Broadcast("g", "g8"), (8, 0))
    assert socket.client.frames == ["g6", "h7"]
    socket.leaves()
    assert socket.groups._members == {}


@scenario
async def test_a_join_after_the_end_leaves_no_member_behind() -> None:
    socket = Socket()
    socket.opens()
    socket.says("x")
    socket.leaves()
    socket.answers(joins=["g"])
    assert socket.groups._members == {}


@scenario
async def test_a_turn_whose_worker_died_is_sent_again_and_its_output_counts_once() -> None:
    socket = Socket()
    socket.opens()
    socket.says("a")
    again = socket.socket.lost(True)
    assert isinstance(again, Receive)
    assert (again.number, again.attempt) == (2, 2)
    socket.answers("b", number=2)
    socket.answers("b", number=2)
    assert socket.client.frames == ["b"]
    socket.leaves()


@scenario
async def test_a_turn_that_kills_workers_closes_with_1011_and_takes_what_waits_along() -> None:
    socket = Socket(attempts=2)
    socket.opens()
    socket.says("a", "b")
    assert [bool(socket.socket.lost(True)) for _ in range(2)] == [True, False]
    assert socket.client.closed.code == 1011
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]
    socket.answers()
    assert socket.ended


ENDED = pytest.mark.parametrize(("path", "attempts"), [(EVERY, 1), (ONCE, 3)], ids=["kills workers", "at most once"])


@ENDED
@scenario
async def test_a_handshake_that_is_not_run_again_is_refused_with_500(path: Path, attempts: int) -> None:
    socket = Socket(path, attempts=attempts)
    assert socket.socket.lost(True) is None
    assert socket.client.closed.status == 500
    assert socket.ended


@ENDED
@scenario
async def test_a_last_will_that_is_not_run_again_ends_the_socket(path: Path, attempts: int) -> None:
    socket = Socket(path, attempts=attempts)
    socket.opens()
    socket.leaves()
    assert isinstance(socket.events[-1], Disconnect)
    assert socket.socket.lost(True) is None
    assert socket.ended


@scenario
async def test_a_handshake_whose_client_left_before_any_worker_took_it_ends_and_nobody_hears_of_it() -> None:
    socket = Socket()
    socket.leaves()
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
    socket.leaves(1006)
    await settled()
    assert socket.rejections.snapshot() == {}
    assert socket.skips == 1


@scenario
async def test_a_socket_that_is_open_is_not_skipped() -> None:
    socket = Socket()
    socket.opens()
    socket.says("a")
    socket.leaves()
    assert socket.skips == 0


@scenario
async def test_a_client_whose_frames_no_worker_takes_in_time_is_closed_with_1013() -> None:
    socket = Socket(inbox_frames=1, turn_frames=1, inbox_deadline_seconds=0)
    socket.opens()
    socket.says("a", "b", "c")
    assert socket.client.is_held
    await socket.client.ended.wait()
    assert socket.client.closed.code == 1013
    assert list(socket.rejections.snapshot()) == ["sockets closed with 1013: no worker took the frames in time"]
    socket.leaves()
    assert not socket.client.is_held, "what comes after is read, or its leaving would not be heard"
    socket.answers()
    assert [type(event) for event in socket.events] == [Connect, Receive, Disconnect]


@scenario
async def test_a_client_that_leaves_while_its_frames_wait_is_not_counted_as_closed() -> None:
    socket = Socket(inbox_frames=1, turn_frames=1, inbox_deadline_seconds=0)
    socket.opens()
    socket.says("a", "b")
    assert socket.client.is_held
    socket.leaves()
    await settled()
    assert (socket.client.kinds(), socket.rejections.snapshot()) == (["accept"], {})


@scenario
async def test_frames_that_do_not_wait_for_their_turns_commit_come_before_it() -> None:
    socket = Socket()
    socket.socket.deliver_all(["too early: the socket is not open"])
    socket.answers(accept=OPEN)
    socket.says("a")
    socket.socket.deliver_all(["progress", b"more"])
    socket.answers("done")
    assert socket.client.frames == ["progress", b"more", "done"]
    socket.leaves()
    socket.socket.deliver_all(["too late"])
    assert len(socket.client.frames) == 3


@scenario
async def test_an_at_most_once_turn_whose_worker_died_is_given_up_and_the_next_frame_goes_on() -> None:
    socket = Socket(ONCE)
    socket.opens()
    socket.says("a", "b")
    assert not socket.socket.repeatable
    assert socket.socket.lost(True) is None
    assert socket.client.kinds() == ["accept"], "the socket stays open"
    assert [(event.number, reason) for event, reason in socket.given_up] == [(2, "its worker died, attempt 1")]
    assert [event.frames for event in socket.events if isinstance(event, Receive)] == [["a"], ["b"]]
    socket.answers("b")
    assert socket.client.frames == ["b"]
    socket.leaves()


@scenario
async def test_an_at_most_once_turn_that_had_not_started_is_sent_again() -> None:
    socket = Socket(ONCE)
    socket.opens()
    socket.says("a")
    assert socket.socket.lost(False) == socket.events[-1]
    assert socket.given_up == []
    socket.leaves()


@scenario
async def test_a_turn_that_was_given_up_is_told_of_once() -> None:
    socket = Socket(attempts=1)
    socket.opens()
    socket.says("a")
    event = socket.events[-1]
    assert socket.socket.lost(True) is None
    assert [given_up for given_up, _ in socket.given_up] == [event]
    socket.answers("late", number=2)
    assert socket.client.frames == []


@scenario
async def test_a_socket_waits_for_room_in_redis() -> None:
    socket = Socket()
    assert socket.socket.refused(False)
    socket.leaves()


@scenario
async def test_a_turn_that_redis_refuses_for_good_ends_its_socket() -> None:
    socket = Socket()
    socket.opens()
    socket.says("a")
    event = socket.events[-1]
    assert not socket.socket.refused(True)
    assert [given_up for given_up, _ in socket.given_up] == [event]
    assert socket.client.closed.code == 1011
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
        socket.opens()
        figures = socket.figures = Figures()
        socket.says("first")
        now = 101.0
        socket.says("waits")
        now = 103.0
        socket.says("waits too")
        socket.answers()
        assert figures.turn_seconds[-1] == 3
        now = 104.0
        socket.answers()
        assert figures.turn_seconds[-1] == 3 + 3

    turns()
