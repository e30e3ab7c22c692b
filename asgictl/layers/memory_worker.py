"""A worker thread's side of the channel layer of a single process."""

import threading
from collections import deque
from collections.abc import Sequence

from asgictl.layers.base import Entry
from asgictl.layers.memory import Memory
from asgictl.machine import forks
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.messages import Frames, LastReply, Response, Sent, Want, WorkerMessage

READ_SECONDS = 1.0  # a read waits as long as on Redis


class MemoryWorkerLayer:
    """A worker thread's side. consumer: the worker's id, a dot, and what tells its threads apart.

    read_seconds: that a read waits; jobs that are delayed come no earlier than it ends.
    """

    client_id = 0

    def __init__(self, memory: Memory, consumer: str, channels: list[str], read_seconds: float | None = None) -> None:
        self.inbox = consumer
        self._read_seconds = READ_SECONDS if read_seconds is None else read_seconds
        self.settled = True  # a commit is answered at once
        self.refused: int = 0  # commits that came too late
        self._memory = memory
        self._streams = [channel.encode() for channel in channels]
        self._waker = threading.Lock()
        self._waker.acquire()
        with memory.lock:
            self._received = memory.inboxes[consumer] = deque()

    def publish_manifest(self, manifest: Manifest) -> None:
        """Tell interfaces what this release serves."""
        self._memory.manifest = encode_manifest(manifest)

    def read(self, count: int) -> list[Entry]:
        with (memory := self._memory).lock:
            if taken := memory.take(self.inbox, self._streams, count):
                return taken
            memory.wait(self.inbox, self._streams, self._waker, self._read_seconds)
            return memory.take(self.inbox, self._streams, count)

    def commit(self, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes = b"") -> None:
        self.refused += not self._memory.commit(entry, reply, sends, last_will)

    def send_now(self, sent: Frames | Sent) -> None:
        forks.check()
        if isinstance(sent, Frames):
            self._memory.reply(sent)
        else:
            self._memory.send(sent)

    def mail(self, reply: Want | Response | None, wait_seconds: float = 0) -> tuple[bool, list[WorkerMessage]]:
        forks.end_child()  # nobody would answer: the event loop is its parent's
        with self._memory.lock:
            is_heard = reply is None or self._memory.reply(reply)
            if wait_seconds and not self._received:
                self._memory.wait(self.inbox, (), self._waker, wait_seconds)
            messages = list(self._received)
            self._received.clear()
            return is_heard, messages

    def release(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._memory.lose(entry.stream, entry.id, False)

    def pass_over(self, stream: bytes, entry_id: bytes, error: Exception | None = None) -> None:
        self._memory.withdraw(stream, entry_id, in_hand=True)

    def end_silence(self) -> None:
        """Nothing is owed."""

    def settle(self) -> None:
        """Nothing is buffered."""

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is buffered; what is in flight, and the inbox, is left by releasing this worker."""
