"""Which sockets are members of which group."""

from asgictl.interface.groups import Groups
from asgictl.wire.messages import Broadcast, Frame


class Member:
    def __init__(self, id: str = "i/1") -> None:
        self.id = id
        self.frames: list[Frame] = []

    def deliver(self, frame: Frame, may_drop: bool = False) -> None:
        self.frames.append(frame)


def test_a_member_receives_what_stands_behind_its_join() -> None:
    groups, member = Groups(), Member()
    groups.join("g", member, (5, 1))
    for sequence, frame in enumerate("abc"):
        groups.deliver(Broadcast("g", frame), (5, sequence))
    assert member.frames == ["c"]


def test_joining_again_keeps_the_first_position() -> None:
    groups, member = Groups(), Member()
    groups.join("g", member, (1, 0))
    groups.join("g", member, (9, 0))
    groups.deliver(Broadcast("g", "x"), (5, 0))
    assert member.frames == ["x"]


def test_a_member_that_left_receives_nothing_and_a_stranger_may_leave() -> None:
    groups, member = Groups(), Member()
    groups.leave("g", member)
    groups.join("g", member, (0, 0))
    groups.leave("g", member)
    groups.leave("g", member)
    groups.deliver(Broadcast("g", "x"), (1, 0))
    assert member.frames == []


def test_a_member_may_leave_while_a_frame_is_delivered() -> None:
    groups, last = Groups(), Member()

    class Leaver(Member):
        def deliver(self, frame: Frame, may_drop: bool = False) -> None:
            super().deliver(frame)
            groups.leave("g", self)

    leaver = Leaver()
    groups.join("g", leaver, (0, 0))
    groups.join("g", last, (0, 0))
    groups.deliver(Broadcast("g", "a"), (1, 0))
    groups.deliver(Broadcast("g", "b"), (2, 0))
    assert (leaver.frames, last.frames) == (["a"], ["a", "b"])


def test_a_connection_that_a_frame_leaves_out_does_without_it() -> None:
    groups, one, other = Groups(), Member("i/1"), Member("i/2")
    for member in (one, other):
        groups.join("g", member, (0, 0))
    groups.deliver(Broadcast("g", "x", but="i/2"), (1, 0))
    assert (one.frames, other.frames) == (["x"], [])
