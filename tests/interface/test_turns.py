"""The lifecycle of one WebSocket, without sockets."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgictl.config import Limits
from asgictl.errors import TransitionError
from asgictl.interface.turns import TRANSITIONS, Connection, State, Trigger
from asgictl.wire.messages import Connect, Disconnect, Done, Frame, Receive, TurnEvent

LIMITS = Limits(turn_frames=3, inbox_frames=8, inbox_bytes=20, attempts=3)


def reply(number: int, state: bytes = b"", attempt: int = 1) -> Done:
    return Done("i/1", number, [], state, None, None, [], [], attempt)


def opened(at_most_once: bool = False) -> Connection:
    return Connection("i/1", b"scope", LIMITS, at_most_once)


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
    assert (connection.state, connection.consumer_state) == (State.OPEN, b"kept")


def with_turn_of(*frames: Frame) -> Connection:
    connection = opened()
    for frame in frames:
        connection.receive(frame)
    connection.next()
    return connection


def test_a_turn_that_no_worker_had_started_is_sent_again_as_it_was() -> None:
    connection = with_turn_of("a", "b")
    event = connection.event
    assert [connection.lost(False) for _ in range(5)] == [event] * 5


def test_after_a_death_the_frames_of_its_turn_go_one_by_one_and_then_together_again() -> None:
    connection = with_turn_of("a", "b", "c", "d", "e")
    turns = [connection.lost(True)]
    while turns[-1]:
        connection.done(reply(turns[-1].number, attempt=turns[-1].attempt))
        turns.append(connection.next())
    assert turns[:-1] == [
        Receive("i/1", 1, 2, b"scope", b"", ["a"], 0),
        Receive("i/1", 2, 2, b"scope", b"", ["b"], 1),
        Receive("i/1", 3, 2, b"scope", b"", ["c"], 2),
        Receive("i/1", 4, 1, b"scope", b"", ["d", "e"], 3),
    ]


def test_when_a_second_sending_survives_the_death_of_the_first_none_of_its_frames_goes_again() -> None:
    connection = with_turn_of("a", "b", "c", "d")
    connection.lost(True)
    assert connection.done(reply(1))
    assert connection.next() == Receive("i/1", 2, 1, b"scope", b"", ["d"], 3)
    assert connection.inbox_bytes == 0


def test_a_turn_is_given_up_once_its_attempts_are_spent() -> None:
    connection = opened()
    connection.connect()
    attempts = [event.attempt if event else None for event in (connection.lost(True) for _ in range(3))]
    assert attempts == [2, 3, None]
    assert (connection.state, connection.event) == (State.IDLE, None)


def test_at_most_once_frames_go_one_by_one_and_say_so() -> None:
    connection = opened(at_most_once=True)
    for frame in "ab":
        connection.receive(frame)
    assert connection.next() == Receive("i/1", 1, 1, b"scope", b"", ["a"], 0, True)
    connection.done(reply(1))
    assert connection.next() == Receive("i/1", 2, 1, b"scope", b"", ["b"], 1, True)


def test_an_at_most_once_turn_is_given_up_with_its_worker_and_the_next_frame_has_its_own_number() -> None:
    connection = opened(at_most_once=True)
    for frame in "ab":
        connection.receive(frame)
    first = connection.next()
    assert connection.lost(False) == first, "it had not started"
    assert connection.lost(True) is None
    assert not connection.done(reply(1)), "too late"
    assert connection.next() == Receive("i/1", 2, 1, b"scope", b"", ["b"], 1, True)


def test_a_loss_without_a_turn_is_impossible() -> None:
    with pytest.raises(TransitionError, match="LOST in state IDLE"):
        opened().lost(True)


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
    with pytest.raises(TransitionError, match="TURN in state OPEN"):
        connection.connect()
    assert (connection.state, connection.event) == (State.OPEN, event)
    assert connection.done(reply(1))


class Lifecycle(RuleBasedStateMachine):
    """Whatever happens in whatever order: one turn in flight, each frame once and in order, the disconnect last."""

    @initialize(wants=st.booleans(), at_most_once=st.booleans())
    def open(self, wants: bool, at_most_once: bool) -> None:
        self.connection = opened(at_most_once)
        self.wants = wants
        self.at_most_once = at_most_once
        self.received: list[Frame] = []
        self.delivered: list[Frame] = []  # whose turn was committed, or given up
        self.flight: TurnEvent | None = None
        self.alone = 0  # frames that a dead worker held, and that have not gone since
        self.first: TurnEvent | None = None  # the turn in flight as it was sent first
        self.disconnects = 0
        self.left = self.accepted = False
        self.begun(self.connection.connect())

    def begun(self, event: TurnEvent) -> None:
        assert self.flight is None, "two turns in flight"
        assert self.disconnects == 0, "a turn after the disconnect"
        self.flight = self.first = event
        if isinstance(event, Receive):
            self.check_frames(event)
            assert event.attempt == (2 if self.alone else 1)
            assert 1 <= len(event.frames) <= (1 if self.alone or self.at_most_once else LIMITS.turn_frames)
            assert event.at_most_once is self.at_most_once
            self.alone = max(self.alone - 1, 0)
        elif isinstance(event, Disconnect):
            assert self.left
            assert self.delivered == self.received, "frames were left out"
            self.disconnects += 1

    def check_frames(self, event: Receive) -> None:
        """Each frame has the number, and so the message id, under which it was received."""
        assert event.first == len(self.delivered)
        assert event.frames == self.received[event.first : event.first + len(event.frames)]

    def advance(self) -> None:
        if event := self.connection.next():
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

    @precondition(lambda self: self.flight)
    @rule(first=st.booleans())
    def done(self, first: bool) -> None:
        """first: what is committed is the first sending, which a worker held besides the one that died."""
        assert self.flight is not None
        committed = self.first if first else self.flight
        assert committed is not None
        if isinstance(self.flight, Connect):
            self.accepted = True
            self.connection.wants_disconnect = self.wants
        elif isinstance(committed, Receive) and isinstance(self.flight, Receive):
            self.delivered += committed.frames
            self.alone -= len(committed.frames) - len(self.flight.frames)
        assert self.connection.done(reply(committed.number, attempt=committed.attempt))
        assert not self.connection.done(reply(self.flight.number)), "counted twice"
        self.flight = None
        self.advance()

    @rule(offset=st.integers(-5, 5).filter(bool))
    def stale_done(self, offset: int) -> None:
        before = self.connection.state, self.connection.event, self.connection.consumer_state
        number = (self.flight.number if self.flight else 0) + offset
        assert not self.connection.done(reply(number, b"stale"))
        assert (self.connection.state, self.connection.event, self.connection.consumer_state) == before

    @precondition(lambda self: self.flight)
    @rule(started=st.booleans())
    def lost(self, started: bool) -> None:
        before, again = self.flight, self.connection.lost(started)
        assert before is not None
        if before.attempt + started > (1 if self.at_most_once else LIMITS.attempts):
            assert again is None
            if self.at_most_once and self.accepted:
                self.pass_over(before)
            else:
                self.give_up()
            return
        assert again is not None
        assert (type(again), again.number, again.attempt) == (type(before), before.number, before.attempt + started)
        if isinstance(before, Receive) and isinstance(again, Receive):
            self.check_frames(again)
            if again.attempt > 1:
                self.alone += len(before.frames) - 1
            assert len(again.frames) == (1 if again.attempt > 1 else len(before.frames))
        self.flight = again

    def pass_over(self, lost: TurnEvent) -> None:
        """What a session does with an at-most-once turn once it is open: this one is lost, the others go on."""
        self.flight = None
        if isinstance(lost, Receive):
            self.delivered += lost.frames
        assert not self.connection.done(reply(lost.number)), "given up, and yet counted"
        self.advance()

    def give_up(self) -> None:
        """What a session does with a turn that kills workers: what was received is dropped with the connection."""
        self.flight, self.alone, self.left = None, 0, True
        self.received = self.delivered.copy()
        self.connection.discard()
        self.connection.leave(1011, "")
        self.advance()

    @rule()
    def leave(self) -> None:
        self.left = True
        self.connection.leave(1001, "")
        self.advance()

    @invariant()
    def the_inbox_weighs_what_waits(self) -> None:
        if hasattr(self, "connection"):
            taken = len(self.flight.frames) if isinstance(self.flight, Receive) else 0
            waiting = self.received[len(self.delivered) + taken :]
            assert list(self.connection.inbox) == waiting
            assert self.connection.inbox_bytes == sum(map(len, waiting))

    def teardown(self) -> None:
        if not hasattr(self, "connection"):
            return
        self.leave()
        while self.flight:
            self.done(False)
        assert self.delivered == self.received
        assert self.disconnects == (self.accepted and self.wants)
        assert self.connection.state is State.CLOSED


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
