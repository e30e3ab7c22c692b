"""What waits in one process for whoever receives from its channels, and which of them are members of which group.

A message stays in its mailbox until a receiver really has it, so a cancelled receive loses nothing. Members may come,
go and be delivered to from any thread, and wait on any event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from asgictl.layers.base import Position
from asgictl.telemetry.rejections import Rejections

BEGINNING: Position = (0, 0)


class Message(NamedTuple):
    """until: when it is thrown away, by monotonic(). is_counted: whether its sender counts what waits."""

    until: float
    data: bytes
    is_counted: bool


class Membership(NamedTuple):
    """position: what was sent before is not for this member. until: when it ends, by monotonic()."""

    position: Position
    until: float


class Mailbox:
    """Of one channel. capacity: of messages; groups: that it is a member of. counted: messages that are counted."""

    __slots__ = ("capacity", "channel", "counted", "groups", "messages", "waiters")

    def __init__(self, channel: str, capacity: int) -> None:
        self.channel = channel
        self.capacity = capacity
        self.counted = 0
        self.groups: set[str] = set()
        self.messages: deque[Message] = deque()
        self.waiters: deque[asyncio.Future[None]] = deque()

    def put(self, message: Message, here: asyncio.AbstractEventLoop | None) -> None:
        """Add a message. here: the event loop that runs in this thread."""
        self.counted += message.is_counted
        self.messages.append(message)
        if self.waiters:
            self.wake(here)

    def take(self, now: float) -> Message | None:
        """Return the oldest message that has not expired."""
        try:
            while self.messages:
                message = self.messages.popleft()
                self.counted -= message.is_counted
                if message.until > now:
                    return message
        except IndexError:  # another thread has taken the last
            pass
        return None

    def wake(self, here: asyncio.AbstractEventLoop | None) -> None:
        """Let one who waits look again."""
        while self.waiters:
            try:
                waiter = self.waiters.popleft()
                loop = waiter.get_loop()
                if waiter.done():
                    continue
                if loop is here:
                    waiter.set_result(None)
                else:
                    loop.call_soon_threadsafe(_resolve, waiter)
            except (IndexError, RuntimeError):  # another thread was quicker; a loop has ended with who waited there
                continue
            return


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


class Mailboxes:
    """Of one process. capacity_of: how many messages may wait in a channel.

    A channel in which a message expires leaves its groups: nobody receives from it any more. This is looked for only
    where messages arrive, since nothing grows otherwise.
    """

    def __init__(self, expiry_seconds: float, group_expiry_seconds: float, capacity_of: Callable[[str], int]) -> None:
        self.shed = Rejections()
        self._expiry_seconds = expiry_seconds
        self._group_expiry_seconds = group_expiry_seconds
        self._capacity_of = capacity_of
        self._mailboxes: dict[str, Mailbox] = {}
        self._groups: dict[str, dict[Mailbox, Membership]] = {}
        self._next_look = 0.0

    def __contains__(self, channel: str) -> bool:
        """Whether somebody uses the channel here, so that its name has been looked at."""
        return channel in self._mailboxes

    def __getitem__(self, channel: str) -> Mailbox:
        """Return the mailbox of a channel, which comes to be when it is asked for."""
        mailbox = self._mailboxes.get(channel)
        return mailbox or self._mailboxes.setdefault(channel, Mailbox(channel, self._capacity_of(channel)))

    def put(self, channel: str, data: bytes, *, is_counted: bool = False) -> bool:
        """Add a message; False when the mailbox is full. What is counted was found to have room."""
        now, mailbox = self._look(), self[channel]
        if not is_counted and len(mailbox.messages) >= mailbox.capacity:
            return False
        mailbox.put(Message(now + self._expiry_seconds, data, is_counted), running_loop())
        return True

    async def receive(self, channel: str) -> Message:
        """Return the next message; without any wait when there is one."""
        while (message := (mailbox := self[channel]).take(monotonic())) is None:
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            mailbox.waiters.append(waiter)
            if mailbox.messages:  # put by another thread, which saw nobody wait
                mailbox.wake(loop)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in mailbox.waiters:
                    mailbox.waiters.remove(waiter)
                if mailbox.messages:  # one may have been put for us alone
                    mailbox.wake(loop)
                self._forget_if_idle(mailbox)
                raise
        return message

    def join(self, group: str, channel: str, position: Position = BEGINNING) -> None:
        """Add a member to a group, or renew its membership."""
        mailbox = self[channel]
        mailbox.groups.add(group)
        members = self._groups.setdefault(group, {})
        known = members.get(mailbox)
        until = monotonic() + self._group_expiry_seconds
        members[mailbox] = Membership(known.position if known else position, until)

    def leave(self, group: str, channel: str) -> None:
        """Remove a member; removing a stranger does nothing."""
        if mailbox := self._mailboxes.get(channel):
            self._remove(group, mailbox)
            self._forget_if_idle(mailbox)

    def deliver(self, group: str, data: bytes, position: Position = (1, 0)) -> None:
        """Give every member who joined before `position` a message; a member whose mailbox is full goes without."""
        if not (members := self._groups.get(group)):
            return
        now, here, dropped = self._look(), running_loop(), 0
        message = Message(now + self._expiry_seconds, data, False)
        for mailbox, membership in list(members.items()):
            if membership.until <= now:
                self._remove(group, mailbox)
            elif membership.position < position:
                if len(mailbox.messages) < mailbox.capacity:
                    mailbox.put(message, here)
                else:
                    dropped += 1
        if dropped:
            self.shed.add("group messages dropped: their channels are full", dropped)

    def counted(self) -> dict[str, int]:
        """Return how many counted messages wait, by channel."""
        return {channel: each.counted for channel, each in list(self._mailboxes.items()) if each.counted}

    def clear(self) -> None:
        """Forget every message and every membership; who waits goes on waiting."""
        self._groups.clear()
        for mailbox in list(self._mailboxes.values()):
            mailbox.messages.clear()
            mailbox.groups.clear()
            mailbox.counted = 0

    def _remove(self, group: str, mailbox: Mailbox) -> None:
        mailbox.groups.discard(group)
        if members := self._groups.get(group):
            members.pop(mailbox, None)
            if not members:
                self._groups.pop(group, None)

    def _forget_if_idle(self, mailbox: Mailbox) -> None:
        if not (mailbox.messages or mailbox.waiters or mailbox.groups):
            self._mailboxes.pop(mailbox.channel, None)

    def _look(self) -> float:
        """Return what time it is; now and then, throw away what expired."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + self._expiry_seconds / 4
            self.shed.tell()
            for mailbox in list(self._mailboxes.values()):
                if mailbox.messages and mailbox.messages[0].until <= now:
                    if message := mailbox.take(now):
                        mailbox.messages.appendleft(message)
                        mailbox.counted += message.is_counted
                    for group in list(mailbox.groups):
                        self._remove(group, mailbox)
                self._forget_if_idle(mailbox)
        return now
