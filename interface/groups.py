"""Which sockets of this process are members of which group."""

from typing import Protocol

from asgictl.layers.base import Position
from asgictl.wire.messages import Broadcast, Frame


class Member(Protocol):
    id: str

    def deliver(self, frame: Frame, may_drop: bool = False) -> None: ...


class Groups:
    """Membership lives here, with the sockets; Redis knows nothing of it, so nothing can be left behind there."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, Position]] = {}

    def join(self, group: str, member: Member, position: Position) -> None:
        """Add a member, who receives what stands behind `position` in the broadcast stream."""
        self._members.setdefault(group, {}).setdefault(member, position)

    def leave(self, group: str, member: Member) -> None:
        """Remove a member; removing a stranger does nothing."""
        members = self._members.get(group, {})
        members.pop(member, None)
        if not members:
            self._members.pop(group, None)

    def joined_at(self, group: str, member: Member) -> Position:
        """Return the position that a member joined at."""
        return self._members[group][member]

    def deliver(self, broadcast: Broadcast, position: Position) -> None:
        """Give the frame to every member who joined before `position`."""
        for member, joined in list(self._members.get(broadcast.group, {}).items()):
            if joined < position and (not broadcast.but or member.id != broadcast.but):
                member.deliver(broadcast.frame, broadcast.may_drop)
