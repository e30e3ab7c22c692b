"""The channel layer of a single process: the promises of Redis and its scripts, kept by one lock.

What stands in Redis elsewhere stands in a Memory; its methods do what the scripts of their names do, and what one does
appears at once. Callbacks go to their event loop in that order, so a reply is heard before the broadcasts behind it.
Nothing here is cut off or forgotten, and threads hold no leases: an end is told by release() or reap_interface().
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from time import monotonic
from typing import NamedTuple

from msgspec.structs import replace

from asgictl.config import DEAD_LETTER_BYTES, MOST_DEAD_LETTERS
from asgictl.layers.base import Answered, Entry, OnBroadcast, OnItsWay, OnReply, Position
from asgictl.layers.redis.keys import interface_of
from asgictl.wire.messages import (
    VERSION,
    Broadcast,
    Died,
    Disconnect,
    Done,
    Event,
    Job,
    LastReply,
    Lost,
    Receive,
    Reply,
    Request,
    Sent,
    WorkerMessage,
    decode_event,
    encode,
)
from asgictl.wire.records import JobRecord

EVENT_BYTES = 4 << 10  # that an event counts for beside its body or frames


@dataclass(slots=True)
class Place:
    """An event in its stream. consumer: for whom it is pending, "" for nobody. retries: as in take_back.lua."""

    event: Event
    retries: int
    consumer: str = ""


def about(event: Event) -> int:
    """Return about how many bytes an event is, rather too many; to encode it would cost more than all else."""
    if isinstance(event, Receive):
        return EVENT_BYTES + sum(map(len, event.frames))
    return EVENT_BYTES + (len(event.body) if isinstance(event, Request) else 0)


class Waiting(NamedTuple):
    """A consumer that waits. waker: held until it is woken."""

    streams: Sequence[bytes]
    waker: threading.Lock


def size_of(event: Event) -> int:
    """Return how many bytes an event is, encoded."""
    return len(encode(event)[1])


class Memory:
    """What all layers of one process share. Its methods may be called from any thread. clock: of delayed messages."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.lock: threading.RLock = threading.RLock()  # guards all that follows
        self.waiting: dict[str, Waiting] = {}  # by consumer
        self.listeners: list[MemoryEventLayer] = []
        self.interfaces: dict[str, MemoryEventLayer] = {}  # who may be replied to
        self.inboxes: dict[str, deque[WorkerMessage]] = {}
        self.manifest: bytes | None = None
        self.dead_letters: deque[tuple[str, Event, str]] = deque()
        self._dead_bytes = 0
        self._streams: dict[bytes, dict[bytes, Place]] = defaultdict(dict)
        self._turns: dict[str, int] = {}  # connection -> last committed turn
        self._last_wills: dict[str, tuple[bytes, bytes]] = {}  # connection -> stream, encoded disconnect event
        self._delayed: list[tuple[float, str, Job]] = []  # a heap: when it is due, its id
        self._last = 0  # the number of the newest entry or broadcast

    def add(self, stream: bytes, event: Event, retries: int = 0) -> bytes:
        """Put an event onto a stream; returns its entry."""
        with self.lock:
            self._last += 1
            entry = b"0-%d" % self._last
            self._streams[stream][entry] = Place(event, retries)
            self.wake_one(stream)
            return entry

    def free(self) -> list[bytes]:
        """Return the streams whose newest event is pending for nobody."""
        newest = {stream: next(reversed(places.values()), None) for stream, places in self._streams.items()}
        return [stream for stream, place in newest.items() if place and not place.consumer]

    def wake_one(self, stream: bytes) -> None:
        """Wake who began to wait last, so that a lone client's events are all one thread's: others stay asleep."""
        for consumer in reversed(self.waiting):
            if stream in self.waiting[consumer].streams:
                self.waiting.pop(consumer).waker.release()
                return

    def wait(self, consumer: str, streams: Sequence[bytes], waker: threading.Lock, seconds: float) -> None:
        """Wait until an event comes onto one of the streams, or a message for the consumer. Hold the lock once."""
        waker.acquire(blocking=False)  # who was woken as its time was over has not taken notice of it
        self.waiting[consumer] = Waiting(streams, waker)
        self.lock.release()
        waker.acquire(timeout=seconds)
        self.lock.acquire()
        self.waiting.pop(consumer, None)

    def wake(self) -> None:
        """End every wait, as if its time were over."""
        with self.lock:
            while self.waiting:
                self.waiting.popitem()[1].waker.release()

    def position(self) -> Position:
        """Return that of the newest entry or broadcast."""
        return 0, self._last

    def depth(self, stream: bytes) -> int:
        with self.lock:
            return len(self._streams[stream])

    def has(self, stream: bytes, entry: bytes) -> bool:
        with self.lock:
            return entry in self._streams[stream]

    def take(self, consumer: str, streams: list[bytes], count: int) -> list[Entry]:
        """Make at most `count` events of each stream pending for a worker, the oldest that are for nobody."""
        with self.lock:
            while self._delayed and self._delayed[0][0] <= self._clock():
                job = heappop(self._delayed)[2]
                self.add(job.channel.encode(), job)
            taken = []
            for stream in streams:
                free = ((entry, place) for entry, place in self._streams[stream].items() if not place.consumer)
                for entry, place in islice(free, count):
                    place.consumer = consumer
                    event = place.event
                    if isinstance(event, Job):
                        event = replace(event, attempt=event.attempt + place.retries)
                    taken.append(Entry(stream, entry, event))
            return taken

    def withdraw(self, stream: bytes, entry: bytes, *, in_hand: bool) -> Place | None:
        """Take an event from its stream if it stands there, and is pending for a worker, or for nobody, as is said."""
        with self.lock:
            place = self._streams[stream].get(entry)
            return self._streams[stream].pop(entry) if place and bool(place.consumer) is in_hand else None

    def commit(self, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes) -> bool:
        """Commit one event: everything that it produced appears together, once, or nothing does."""
        with self.lock:
            if self.withdraw(entry.stream, entry.id, in_hand=True) is None:
                return False
            connection = reply.connection if reply else ""
            turn = reply.number if isinstance(reply, Done) else 0  # 0, of an ASGI application's handshake, is none
            if 0 < turn <= self._turns.get(connection, 0):
                return False
            joins = isinstance(reply, Done) and turn and reply.joins
            is_disconnect = isinstance(entry.event, Disconnect)
            # The disconnect of a dead interface's connection has nobody to reply to, but is to be heard by others.
            if reply and not self.reply(reply, self.position() if joins else None) and not is_disconnect:
                return False
            if is_disconnect:
                self.end(connection)
            elif turn:
                self._turns[connection] = turn
                if last_will:  # it goes to the pool that serves this connection
                    pool = entry.stream.removeprefix(entry.event.channel.encode())
                    self._last_wills[connection] = (Disconnect.channel.encode() + pool, last_will)
            for sent in sends:
                self.send(sent)
            return True

    def reply(self, reply: Reply, position: Position | None = None) -> bool:
        """Tell the interface that holds a connection; False when it is gone."""
        with self.lock:
            interface = self.interfaces.get(interface_of(reply.connection))
            if interface is not None:
                interface.hear_reply(reply, position)
            return interface is not None

    def send(self, sent: Sent) -> None:
        """Tell everybody who holds sockets, or put a job onto its channel, at once or when it is due."""
        with self.lock:
            if isinstance(sent, Broadcast):
                self._last += 1
                for listener in self.listeners:
                    listener.hear_broadcast(sent, (0, self._last))
            elif isinstance(sent, JobRecord):
                return  # whoever asks for one asks Redis; in tests asgictl.testing keeps them
            elif sent.delay_milliseconds:
                heappush(self._delayed, (self._clock() + sent.delay_milliseconds / 1000, sent.id, sent))
            else:
                self.add(sent.channel.encode(), sent)

    def post(self, inbox: str, message: WorkerMessage) -> bytes | None:
        """Put a message into a worker's inbox; None when that worker is no more."""
        with self.lock:
            if inbox not in self.inboxes:
                return None
            self._last += 1
            self.inboxes[inbox].append(message)
            if waiting := self.waiting.pop(inbox, None):
                waiting.waker.release()
            return b"0-%d" % self._last

    def lose(self, stream: bytes, entry: bytes, started: bool) -> None:
        """Take a pending event from a worker and tell its interface that it is lost, if it was pending."""
        with self.lock:
            if (place := self.withdraw(stream, entry, in_hand=True)) is None:
                return
            event, retries = place.event, place.retries + started
            if not isinstance(event, Job):
                number = 0 if isinstance(event, Request) else event.number
                if self.reply(Lost(event.connection, number, event.attempt, started)):
                    return
            # No interface sends a job again, nor a dead one the last event of its connections: it is ours to add.
            if isinstance(event, Job | Disconnect) and retries < 3:
                self.add(stream, event, retries)
            elif isinstance(event, Job):
                self.dead_letter(event.channel, event, f"{retries} workers died of it")

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        """Keep an event that was given up; the oldest go when they are too many, or too many bytes."""
        with self.lock:
            self.dead_letters.append((channel, event, reason))
            self._dead_bytes += size_of(event)
            while len(self.dead_letters) > MOST_DEAD_LETTERS or self._dead_bytes > DEAD_LETTER_BYTES:
                self._dead_bytes -= size_of(self.dead_letters.popleft()[1])

    def release(self, worker: str, started: tuple[str, ...] = ("?",)) -> int:
        """Take every pending event from a dead worker, of all its threads; returns how many. Every interface hears it.

        started: `stream entry` of those that had started, "?" when that is not known.
        """
        with self.lock:
            prefix = worker + "."
            held = [
                (stream, entry, "?" in started or f"{stream.decode()} {entry.decode()}" in started)
                for stream, places in self._streams.items()
                for entry, place in places.items()
                if place.consumer.startswith(prefix)
            ]
            for lost in held:
                self.lose(*lost)
            self.inboxes = {inbox: each for inbox, each in self.inboxes.items() if not inbox.startswith(prefix)}
            for interface in self.interfaces.values():
                interface.hear_reply(Died(worker), None)
            return len(held)

    def reap_interface(self, interface: str) -> int:
        """Clean up behind a dead interface, and emit the disconnect events of its connections.

        What a connection still has in a stream runs before its disconnect: to be called again while it returns more
        than 0, the number of connections that are left.
        """
        with self.lock:
            self.interfaces.pop(interface, None)
            busy = {place.event.connection for places in self._streams.values() for place in places.values()}
            left = [connection for connection in self._last_wills if interface_of(connection) == interface]
            for connection in set(left) - busy:
                stream, event = self._last_wills.pop(connection)
                self.add(stream, decode_event(b"%d" % VERSION, event))
            if busy.isdisjoint(left):
                self.forget(interface)
            return len(busy.intersection(left))

    def forget(self, interface: str) -> None:
        """Leave nothing of an interface behind."""
        with self.lock:
            self.interfaces.pop(interface, None)
            for connection in [each for each in {**self._turns, **self._last_wills} if interface_of(each) == interface]:
                self.end(connection)

    def end(self, connection: str) -> None:
        """Leave nothing of a connection behind."""
        with self.lock:
            self._turns.pop(connection, None)
            self._last_wills.pop(connection, None)


class Added(NamedTuple):
    """What was added. size: in bytes, encoded."""

    size: int

    def withdraw(self) -> None:
        """It has arrived."""


class MemoryEventLayer:
    """An interface's side, and that of groups whose members all live in this process; on one event loop."""

    silent_seconds: float = 0.0

    def __init__(self, memory: Memory, interface: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> None:
        self._memory = memory
        self._id = interface
        self._on_reply = on_reply
        self._on_broadcast = on_broadcast
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0  # that runs the loop

    @property
    def identities(self) -> Sequence[str]:
        return (self._id,)

    @property
    def manifest(self) -> bytes | None:
        return self._memory.manifest

    async def start(self) -> None:
        """Hear replies and broadcasts from now on."""
        with self._memory.lock:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
            self._memory.listeners.append(self)
            self._memory.interfaces[self._id] = self

    async def stop(self) -> None:
        """Hear nothing more."""
        with self._memory.lock:
            self._loop = None
            if self in self._memory.listeners:
                self._memory.listeners.remove(self)

    async def deregister(self) -> None:
        self._memory.forget(self._id)

    def publish(self, sent: Sent) -> None:
        """Give a frame to every member, after the caller has gone on, or a job to its channel."""
        self._memory.send(sent)

    def hear_broadcast(self, broadcast: Broadcast, position: Position) -> None:
        self._soon(self._on_broadcast, broadcast, position)

    def hear_reply(self, reply: Reply, position: Position | None) -> None:
        self._soon(self._on_reply, reply, position)

    def _soon(self, callback: Callable[..., object], *arguments: object) -> None:
        if self._loop is not None:
            is_there = threading.get_ident() == self._thread
            with suppress(RuntimeError):  # the loop was closed without a stop(), which is as good as a death
                (self._loop.call_soon if is_there else self._loop.call_soon_threadsafe)(callback, *arguments)

    def append(
        self, channel: str, event: Event, answered: Answered, *, repeatable: bool, is_own: bool = False
    ) -> OnItsWay:
        self._soon(answered, None if is_own else self._memory.add(channel.encode(), event))
        return Added(about(event))

    def homes(self, channel: str) -> tuple[str, ...]:
        return ()  # ASGI applications run behind the edge, without a layer

    def find_homes(self, found: Callable[[], None]) -> None:
        self._soon(found)

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        place = self._memory.withdraw(channel.encode(), entry, in_hand=False)
        self._soon(answered, int(place is not None))

    def post(self, inbox: str, message: WorkerMessage, answered: Answered) -> None:
        self._soon(answered, self._memory.post(inbox, message))

    def forget(self, connection: str) -> None:
        self._memory.end(connection)

    def depth(self, channel: str, answered: Answered) -> None:
        self._soon(answered, self._memory.depth(channel.encode()))

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        if not self._memory.has(channel.encode(), entry):
            self._soon(gone)  # behind the reply, if one is on its way

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        self._memory.dead_letter(channel, event, reason)
