"""The two ends of a hand-over, step by step; test_handover_model.py has them do all at once."""

from collections.abc import Sequence

import pytest

from asgictl.errors import TransitionError
from asgictl.interface.handover import (
    MOST_ON_THEIR_WAY,
    Action,
    Begin,
    Forget,
    Gaps,
    New,
    Old,
    Predecessor,
    Resume,
    Send,
    Successor,
    Transfer,
    missed,
)
from asgictl.wire.handover import (
    VERSION,
    Declined,
    Fenced,
    Following,
    NoneLeft,
    Offer,
    Position,
    Record,
    Refused,
    Taken,
    Withdrawn,
    Yours,
)
from asgictl.wire.manifest import ANY

OFFER = Offer(VERSION, "i", b"e", (7, 0))
DRAIN = [Action.TRIM_REPLIES, Action.CLOSE]
SURVIVE = [Action.CLAIM, Action.TRIM_REPLIES, Action.REAP]


def record(connection: str = "i/1", groups: Sequence[str] = (), broadcasts: tuple[int, int] = (5, 0)) -> Record:
    joined = dict.fromkeys(groups, (1, 0))
    return Record(connection, b"", ANY, b"", 1, 0, 0, True, b"", [], joined, b"e", (7, 0), broadcasts)


def offering(*held: str) -> Predecessor:
    old = Predecessor("i")
    assert old.offer(held, b"e", (7, 0)) == [Action.KEEP_REPLIES, Send(OFFER)]
    return old


def moving(*held: str) -> Predecessor:
    old = offering(*held)
    assert old.heard(Following()) == [Action.DISCLAIM, Action.QUIESCE]
    return old


def taking() -> Successor:
    new = Successor()
    assert new.heard(OFFER) == [Action.FOLLOW]
    assert new.followed() == [Send(Following())]
    return new


def test_a_socket_moves_in_three_steps_and_the_last_one_ends_it() -> None:
    old, new = moving("i/1", "i/2"), taking()
    assert old.quiet("i/1") == [Transfer("i/1")]
    assert new.heard(record()) == [Send(Taken("i/1"))]
    assert old.heard(Taken("i/1")) == [Forget("i/1"), Send(Yours("i/1"))]
    assert new.heard(Yours("i/1")) == [Begin("i/1")]
    assert old.ended("i/2") == [Send(NoneLeft()), Action.UNFOLLOW]
    assert new.heard(NoneLeft()) == [Action.CLAIM, Action.TRIM_REPLIES]
    assert (old.state, new.state) == (Old.GIVEN, New.SOLE)
    assert new.cut() == []
    assert old.cut() == []


def test_an_identity_without_sockets_moves_at_once() -> None:
    assert offering().heard(Following())[-2:] == [Send(NoneLeft()), Action.UNFOLLOW]


def test_no_socket_moves_before_the_new_process_follows() -> None:
    old = offering("i/1")
    assert old.quiet("i/1") == []
    old.opened("i/2")
    old.heard(Following())
    assert old.quiet("i/2") == [Transfer("i/2")]
    assert old.quiet("i/2") == [], "it is on its way"
    assert old.quiet("i/9") == [], "a stranger"


def test_so_many_are_on_their_way_and_no_more() -> None:
    names = [f"i/{n}" for n in range(MOST_ON_THEIR_WAY + 1)]
    old = moving(*names)
    sent = [old.quiet(name) for name in names]
    assert sent[-1] == []
    assert not old.takes_more
    old.heard(Taken(names[0]))
    assert old.quiet(names[-1]) == [Transfer(names[-1])]


def test_a_record_without_its_descriptor_stays() -> None:
    old, new = moving("i/1"), taking()
    old.quiet("i/1")
    assert new.heard(record(), is_usable=False) == [Send(Refused("i/1"))]
    assert old.heard(Refused("i/1")) == [Resume("i/1")]
    assert old.quiet("i/1") == [Transfer("i/1")], "it is tried again"


def test_what_is_late_ends_with_the_old_process() -> None:
    old = moving("i/1", "i/2")
    old.quiet("i/1")
    assert old.late() == [Action.CLOSE]
    assert old.quiet("i/2") == []
    assert old.heard(Refused("i/1")) == [Resume("i/1"), Action.CLOSE]
    assert old.ended("i/1") == []
    assert old.ended("i/2") == [Send(NoneLeft()), Action.UNFOLLOW]


def test_an_offer_that_nobody_takes_up_is_withdrawn() -> None:
    old, new = offering("i/1"), taking()
    assert old.late() == [Send(Withdrawn()), *DRAIN]
    assert old.heard(Following()) == [], "it crossed"
    assert new.heard(Withdrawn()) == [Action.UNFOLLOW]
    assert new.cut() == [], "the end of the line says nothing then"


def test_the_new_ones_death_leaves_what_was_not_given() -> None:
    assert offering("i/1").cut() == DRAIN
    old = moving("i/1", "i/2")
    old.quiet("i/1")
    assert old.cut() == [Resume("i/1"), *SURVIVE, Action.CLOSE]
    assert old.cut() == []


def test_the_old_ones_death_gives_what_has_come_whole() -> None:
    new = taking()
    new.heard(record())
    assert new.cut() == [Begin("i/1"), *SURVIVE]
    early = Successor()
    early.heard(OFFER)
    assert early.cut() == SURVIVE
    assert early.followed() == []
    assert Successor().cut() == []


def test_a_version_that_is_not_adjacent_is_declined() -> None:
    new, old = Successor(), offering("i/1")
    assert new.heard(Offer(VERSION + 2, "i", b"e", (0, 0))) == [Send(Declined(VERSION))]
    assert new.heard(record()) == []
    assert old.heard(Declined(VERSION)) == DRAIN
    assert Successor().heard(Offer(VERSION + 1, "i", b"e", (0, 0))) == [Action.FOLLOW]


def test_a_lost_lease_ends_both() -> None:
    old, new = moving("i/1"), taking()
    old.quiet("i/1")
    new.heard(record())
    assert old.fenced() == [Send(Fenced()), Action.DROP]
    assert old.fenced() == []
    assert old.heard(Taken("i/1")) == []
    assert new.heard(Fenced()) == [Action.DROP]
    assert new.fenced() == []
    assert new.cut() == []


def test_what_a_state_does_not_allow_changes_nothing() -> None:
    with pytest.raises(TransitionError):
        moving("i/1").heard(Taken("i/1"))
    with pytest.raises(TransitionError):
        moving("i/1").heard(Following())
    with pytest.raises(TransitionError):
        Successor().heard(record())
    new = taking()
    with pytest.raises(TransitionError):
        new.heard(OFFER)
    assert new.state is New.TAKING


@pytest.mark.parametrize(
    ("groups", "epoch", "broadcasts", "replies", "expected"),
    [
        ((), b"e", (9, 0), (7, 0), Gaps(None, None)),
        (("g",), b"e", (5, 0), (7, 0), Gaps(None, None)),
        (("g",), b"e", (4, 0), (6, 0), Gaps(None, None)),
        (("g",), b"e", (9, 0), (7, 0), Gaps(((5, 0), (9, 0)), None)),
        ((), b"e", (9, 0), (8, 0), Gaps(None, ((7, 0), (8, 0)))),
        (("g",), b"other", (4, 0), (6, 0), Gaps(((0, 0), (4, 0)), ((0, 0), (6, 0)))),
    ],
)
def test_what_stands_between_the_two_positions_is_missing(
    groups: Sequence[str], epoch: bytes, broadcasts: Position, replies: Position, expected: Gaps
) -> None:
    assert missed(record(groups=groups), epoch, broadcasts=broadcasts, replies=replies) == expected
