"""The lifecycle of one WebSocket, without sockets."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgictl.configuration import Limits
from asgictl.connection import TRANSITIONS, Connection, State, Trigger
from asgictl.errors import TransitionError
from asgictl.messages import Connect, Disconnect, Done, Frame, Receive, TurnEvent

LIMITS = Limits(turn_frames=3, inbox_frames=8, inbox_bytes=20)


def reply(number: int, state: bytes = b"") -> Done:
    return Done("i/1", number, [], state, None, None, [], [])


def opened() -> Connection:
    return Connection("i/1", b"scope", LIMITS)


def test_the_first_turn_is_the_handshake() -> None:
    assert opened().connect() == Connect("i/1", 1, 1, b"scope", b"")


def test_frames_that_arrive_during_a_turn_wait_and_share_the_next_one() -> None:
    connection = opened()
    connection.receive("a")
    first = connection.next()
    for letter in "bcde":
        connection.receive(letter)
    assert connection.next() is None
    assert connection.done(reply(1))
    second = connection.next()
    assert isinstance(first, Receive)
    assert isinstance(second, Receive)
    assert (first.frames, second.frames) == (["a"], ["b", "c", "d"])


@pytest.mark.parametrize(
    ("frames", "full"), [(["x"] * 7, False), (["x"] * 8, True), (["x" * 19], False), (["x" * 20], True)]
)
def test_an_inbox_is_full_by_frames_or_by_bytes(frames: list[Frame], full: bool) -> None:
    connection = opened()
    for frame in frames:
        connection.receive(frame)
    assert connection.full is full


def test_a_turn_makes_room_in_a_full_inbox() -> None:
    connection = opened()
    connection.receive("x" * 20)
    assert connection.full
    connection.next()
    assert not connection.full
    assert connection.inbox_bytes == 0


def test_state_of_a_reply_travels_with_the_next_turn_and_an_empty_one_changes_nothing() -> None:
    connection = opened()
    states = []
    for number, state in enumerate([b"one", b"", b"two", b""], 1):
        connection.receive("x")
        event = connection.next()
        assert event is not None
        states.append(event.state)
        connection.done(reply(number, state))
    assert states == [b"", b"one", b"one", b"two"]


def test_a_late_reply_changes_nothing() -> None:
    connection = opened()
    connection.receive("x")
    connection.next()
    assert connection.done(reply(1, b"kept"))
    assert not connection.done(reply(1, b"late"))
    connection.receive("y")
    connection.next()
    assert not connection.done(reply(1, b"later"))
    assert (connection.state, connection.consumer_state) == (State.SENDING, b"kept")


def test_a_cut_sends_the_same_event_again_only_while_its_fate_is_unknown() -> None:
    connection = opened()
    assert connection.cut() is None
    event = connection.connect()
    assert connection.cut() is event
    connection.added(1)
    assert connection.cut() is None


def test_a_late_answer_to_an_addition_is_passed_over() -> None:
    connection = opened()
    connection.connect()
    connection.done(reply(1))
    connection.added(1)
    idle = connection.state
    connection.receive("x")
    connection.next()
    connection.added(1)
    assert (idle, connection.state) == (State.IDLE, State.SENDING)


def test_nobody_hears_of_the_end_of_a_connection_that_no_consumer_opened() -> None:
    connection = opened()
    connection.leave(1000, "")
    assert connection.next() is None
    assert connection.state is State.CLOSED


def test_the_first_reason_to_leave_counts() -> None:
    connection = opened()
    connection.wants_disconnect = True
    connection.leave(4000, "first")
    connection.leave(1006, "second")
    assert connection.next() == Disconnect("i/1", 1, 1, b"scope", b"", 4000, "first")


def test_discarded_frames_reach_no_consumer() -> None:
    connection = opened()
    connection.receive("x")
    connection.discard()
    assert connection.next() is None
    assert connection.inbox_bytes == 0


@pytest.mark.parametrize(("state", "trigger"), sorted(set(product(State, Trigger)) - set(TRANSITIONS), key=str))
def test_an_impossible_trigger_names_state_and_trigger_and_changes_nothing(state: State, trigger: Trigger) -> None:
    connection = opened()
    connection.state = state
    with pytest.raises(TransitionError, match=f"{trigger.name} in state {state.name}"):
        connection._transit(trigger)
    assert connection.state is state


def test_a_second_handshake_is_impossible_and_changes_nothing() -> None:
    connection = opened()
    event = connection.connect()
    with pytest.raises(TransitionError, match="TURN in state SENDING"):
        connection.connect()
    assert (connection.state, connection.event) == (State.SENDING, event)
    assert connection.done(reply(1))


class Lifecycle(RuleBasedStateMachine):
    """Whatever happens in whatever order: one turn in flight, each frame once and in order, the disconnect last."""

    @initialize(wants=st.booleans())
    def open(self, wants: bool) -> None:
        self.connection = opened()
        self.wants = wants
        self.received: list[Frame] = []
        self.ran: list[Frame] = []
        self.flight: TurnEvent | None = None
        self.disconnects = 0
        self.left = False
        self.begun(self.connection.connect())

    def begun(self, event: TurnEvent) -> None:
        assert self.flight is None, "two turns in flight"
        assert self.disconnects == 0, "a turn after the disconnect"
        self.flight = event
        if isinstance(event, Receive):
            assert 1 <= len(event.frames) <= LIMITS.turn_frames
            self.ran += event.frames
        elif isinstance(event, Disconnect):
            assert self.left
            assert self.ran == self.received, "frames were left out"
            self.disconnects += 1

    def advance(self) -> None:
        in_flight = self.flight
        event = self.connection.next()
        if event is not None:
            assert in_flight is None
            self.begun(event)

    @precondition(lambda self: not self.left)
    @rule(size=st.integers(0, 9))
    def receive(self, size: int) -> None:
        frame = f"{len(self.received)}".ljust(size)
        self.received.append(frame)
        self.connection.receive(frame)
        self.advance()

    @rule()
    def next(self) -> None:
        self.advance()

    @rule(late=st.integers(0, 2))
    def added(self, late: int) -> None:
        before = self.connection.state
        number = (self.flight.number if self.flight else 0) - late
        self.connection.added(number)
        assert self.connection.state is (State.SENT if before is State.SENDING and late == 0 else before)

    @rule()
    def cut(self) -> None:
        sending = self.connection.state is State.SENDING
        assert self.connection.cut() is (self.flight if sending else None)

    @precondition(lambda self: self.flight)
    @rule()
    def done(self) -> None:
        assert self.flight is not None
        if isinstance(self.flight, Connect):
            self.connection.wants_disconnect = self.wants
        assert self.connection.done(reply(self.flight.number))
        self.flight = None
        self.advance()

    @rule(offset=st.integers(-5, 5).filter(bool))
    def stale_done(self, offset: int) -> None:
        before = self.connection.state, self.connection.event, self.connection.consumer_state
        number = (self.flight.number if self.flight else 0) + offset
        assert not self.connection.done(reply(number, b"stale"))
        assert (self.connection.state, self.connection.event, self.connection.consumer_state) == before

    @rule()
    def leave(self) -> None:
        self.left = True
        self.connection.leave(1001, "")
        self.advance()

    @invariant()
    def frames_run_in_order(self) -> None:
        assert self.ran == self.received[: len(self.ran)]

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        self.leave()
        while self.flight:
            self.done()
        assert self.ran == self.received
        assert self.disconnects == int(self.wants)
        assert self.connection.state is State.CLOSED


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
