"""The names of everything that an instance keeps in Redis.

All stand under one hash tag, so that they share a slot and a cluster works; instances spread over its nodes.
"""

from collections.abc import Callable
from functools import lru_cache

WORKERS = "workers"  # the consumer group through which workers compete for events


class Keys:
    """Key names of the instance `name`."""

    def __init__(self, name: str) -> None:
        self._prefix = f"asgictl:{{{name}}}:"
        self.of_interface: Callable[[str], tuple[str, str, str]] = lru_cache(64)(self._of_interface)
        self.broadcast: str = self._prefix + "bc"
        self.trimmed: str = self._prefix + "bc:trimmed"  # the newest broadcast that is kept no more
        self.manifest: str = self._prefix + "manifest"
        self.channels: str = self._prefix + "channels"  # every channel's stream that a worker has read
        self.own: str = self._prefix + "own"  # zset: workers' own channels, 1 while their workers take new events
        self.dead: str = self._prefix + "dead"  # events that were given up
        self.records: str = self._prefix + "records"  # what became of jobs whose senders want to know (keep.lua)
        self.alive: str = self._prefix + "alive"  # who holds a lease, and until which Redis millisecond
        self.epoch: str = self._prefix + "epoch"  # lost when Redis forgets all
        self.clock: str = self._prefix + "clock"  # when anybody last beat
        self.grace: str = self._prefix + "grace"  # until when nobody is taken for dead
        self.heard: str = self._prefix + "heard"  # zset: processes that have a record, and at which Redis millisecond
        self.check: str = self._prefix + "check"  # for a moment, before anything starts
        self.layer: str = self._prefix + "layer:"  # what all keys of a Channels channel layer begin with

    def channel(self, channel: str) -> str:
        """The stream of a channel's events."""
        return f"{self._prefix}ch:{channel}"

    def delayed(self, channel: str) -> str:
        """The zset of messages that wait for their time, by Redis milliseconds; only of background channels."""
        return delayed_of(self.channel(channel))

    def weight(self, channel: str) -> str:
        """How many bytes those two keys take, for a second; only of background channels."""
        return self.channel(channel) + ":bytes"

    def record(self, id: str) -> str:
        """What a process says of itself."""
        return f"{self._prefix}process:{id}"

    def _of_interface(self, interface: str) -> tuple[str, str, str]:
        """Reply stream, turns and last wills of an interface."""
        return self.replies(interface), self.turns(interface), self.last_wills(interface)

    def replies(self, connection: str) -> str:
        """The reply stream of the interface that holds `connection`; only that interface creates it."""
        return f"{self._prefix}re:{interface_of(connection)}"

    def inbox(self, consumer: str) -> str:
        """The stream of messages to one thread of a worker; only that worker creates it."""
        return f"{self._prefix}in:{consumer}"

    def turns(self, connection: str) -> str:
        """The hash connection -> last committed turn, of the interface that holds `connection`."""
        return f"{self._prefix}turns:{interface_of(connection)}"

    def last_wills(self, connection: str) -> str:
        """The hash connection -> disconnect event to run should the interface die; only where a consumer wants it."""
        return f"{self._prefix}conns:{interface_of(connection)}"


def delayed_of(stream: str) -> str:
    """Return the zset beside a channel's stream."""
    return stream + ":delayed"


def sockets_of(interface: str) -> str:
    """Return the identity of a process's sockets, which can move; `interface` is that of its requests."""
    return interface + ".s"


def interface_of(connection: str) -> str:
    """Return the id of the interface that a connection's id begins with; an interface's own id is its own."""
    return connection.partition("/")[0]
