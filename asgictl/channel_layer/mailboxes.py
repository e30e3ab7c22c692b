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
# Channels in groups that nobody seems to receive from. Each holds at most its capacity of messages, which expire and
# whose bytes it shares with the other members, and 1 KiB of its own.
ABANDONED_CHANNELS = 10_000


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
    """Of one channel. capacity: of messages; groups: that it is a member of. counted: messages that are counted.

    has_freed: whether a counted message has expired that its senders still count. unread_since: when the first message
    expired after the last that was received, 0 for none.
    """

    __slots__ = ("capacity", "channel", "counted", "groups", "has_freed", "messages", "unread_since", "waiters")

    def __init__(self, channel: str, capacity: int) -> None:
        self.channel: str = channel
        self.capacity: int = capacity
        self.counted: int = 0
        self.groups: set[str] = set()
        self.has_freed: bool = False
        self.unread_since: float = 0.0
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
            if self.messages[0].until <= now:
                self.expire(now)
            message = self.messages.popleft()
        except IndexError:  # there is none, all have expired, or another thread has taken the last
            return None
        self.counted -= message.is_counted
        self.unread_since = 0.0
        return message

    def has_room(self, now: float) -> bool:
        """Whether one more message may wait."""
        if len(self.messages) >= self.capacity:
            self.expire(now)
        return len(self.messages) < self.capacity

    def expire(self, now: float) -> None:
        """Drop the messages whose time is over."""
        try:
            while self.messages and self.messages[0].until <= now:
                message = self.messages.popleft()
                if message.until > now:  # another thread has taken the one that was first
                    self.messages.appendleft(message)
                    return
                self.counted -= message.is_counted
                self.has_freed |= message.is_counted
                self.unread_since = self.unread_since or now
        except IndexError:  # another thread has taken the last
            pass

    def is_idle(self) -> bool:
        """Whether nothing would be lost without it."""
        return not (self.messages or self.waiters or self.groups)

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

    A membership lasts until group_expiry, whatever expires meanwhile. The specification (Persistence) lets a channel
    whose message expired lose its memberships until it receives again; only where more than ABANDONED_CHANNELS
    are such do those go that have been it for longest. This is looked for where messages arrive and members join.
    """

    def __init__(self, expiry_seconds: float, group_expiry_seconds: float, capacity_of: Callable[[str], int]) -> None:
        self.rejections: Rejections = Rejections()
        self._expiry_seconds = expiry_seconds
        self._group_expiry_seconds = group_expiry_seconds
        self._capacity_of = capacity_of
        self._mailboxes: dict[str, Mailbox] = {}
        self._groups: dict[str, dict[Mailbox, Membership]] = {}
        self._counting: set[Mailbox] = set()  # where counted messages may wait
        self._next_look = 0.0
        self._next_member_look = monotonic() + group_expiry_seconds / 4

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
        if is_counted:
            self._counting.add(mailbox)
        elif not mailbox.has_room(now):
            return False
        mailbox.put(Message(now + self._expiry_seconds, data, is_counted), running_loop())
        return True

    async def receive(self, channel: str) -> Message:
        """Return the next message; without any wait when there is one."""
        while (message := (mailbox := self[channel]).take(monotonic())) is None:
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            mailbox.waiters.append(waiter)
            # Another thread has put a message and saw nobody wait, or has forgotten an idle mailbox.
            if mailbox.messages or self._mailboxes.get(channel) is not mailbox:
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
        now, mailbox = self._look(), self[channel]
        mailbox.groups.add(group)
        members = self._groups.setdefault(group, {})
        known = members.get(mailbox)
        if known and known.until > now:
            position = known.position
        members[mailbox] = Membership(position, now + self._group_expiry_seconds)

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
                if mailbox.has_room(now):
                    mailbox.put(message, here)
                else:
                    dropped += 1
        if dropped:
            self.rejections.add("group messages dropped: channel full", dropped)

    def counted(self) -> dict[str, int]:
        """Return how many counted messages wait, by channel."""
        return {mailbox.channel: mailbox.counted for mailbox in list(self._counting) if mailbox.counted}

    def counted_in(self, channel: str) -> int:
        """Return how many counted messages wait in one."""
        return mailbox.counted if (mailbox := self._mailboxes.get(channel)) else 0

    def freed(self) -> list[str]:
        """Return the channels in which counted messages have expired since the last call."""
        now, found = monotonic(), []
        for mailbox in list(self._counting):
            mailbox.expire(now)
            if mailbox.has_freed:
                mailbox.has_freed = False
                found.append(mailbox.channel)
            if not mailbox.counted:
                self._counting.discard(mailbox)
        return found

    def clear(self) -> None:
        """Forget every message and every membership; who waits goes on waiting."""
        self._groups.clear()
        for mailbox in list(self._mailboxes.values()):
            mailbox.messages.clear()
            mailbox.groups.clear()
            mailbox.counted = 0
            mailbox.unread_since = 0.0

    def _remove(self, group: str, mailbox: Mailbox) -> None:
        mailbox.groups.discard(group)
        if members := self._groups.get(group):
            members.pop(mailbox, None)
            if not members:
                self._groups.pop(group, None)

    def _forget_if_idle(self, mailbox: Mailbox) -> None:
        if mailbox.is_idle():
            self._mailboxes.pop(mailbox.channel, None)
            if not mailbox.is_idle():  # another thread has used it meanwhile
                self._mailboxes.setdefault(mailbox.channel, mailbox)

    def _look(self) -> float:
        """Return what time it is; now and then, throw away what expired."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + self._expiry_seconds / 4
            self.rejections.snapshot()
            abandoned: list[Mailbox] = []
            for mailbox in list(self._mailboxes.values()):
                if mailbox.messages:
                    mailbox.expire(now)
                if not mailbox.groups:
                    self._forget_if_idle(mailbox)
                elif mailbox.unread_since and not mailbox.waiters:
                    abandoned.append(mailbox)
            self._drop_abandoned(abandoned)
            if now >= self._next_member_look:
                self._next_member_look = now + self._group_expiry_seconds / 4
                self._end_memberships(now)
        return now

    def _drop_abandoned(self, abandoned: list[Mailbox]) -> None:
        """Take the channels that are unread for longest out of their groups, where there are too many."""
        if (surplus := len(abandoned) - ABANDONED_CHANNELS) > 0:
            abandoned.sort(key=lambda mailbox: mailbox.unread_since)
            for mailbox in abandoned[:surplus]:
                for group in list(mailbox.groups):
                    self._remove(group, mailbox)
                self._forget_if_idle(mailbox)
            self.rejections.add("channels removed from groups: nobody receives", surplus)

    def _end_memberships(self, now: float) -> None:
        for group, members in list(self._groups.items()):
            for mailbox, membership in list(members.items()):
                if membership.until <= now:
                    self._remove(group, mailbox)
                    self._forget_if_idle(mailbox)
