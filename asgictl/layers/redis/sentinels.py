"""Which node is the master, as Redis Sentinel says, and the end of connections to any other.

A process asks all Sentinels once a second, and when it connects. The newest configuration counts, since one that was
cut off from the others still tells of an old master. A connection to another node than the master is cut, whatever it
waits for: an old master that stood still and wakes goes on to answer, takes writes that are lost, and answers reads
when it is a replica.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import redis
from redis.sentinel import MasterNotFoundError

from asgictl.machine.ticks import until_tick

logger = logging.getLogger("asgictl.layers")
ASK_SECONDS = 1.0
ANSWER_SECONDS = 0.5  # that each Sentinel has


class Node(NamedTuple):
    """Where a Redis listens."""

    host: str
    port: int


class _Answer(NamedTuple):
    """Of one Sentinel; the greatest is the one to believe."""

    epoch: int
    is_up: bool
    master: Node


class Sentinels:
    """Ask these Sentinels for the master of a service, from a thread that is started with the first question."""

    def __init__(self, service: str, clients: Sequence[redis.Redis]) -> None:
        self.service = service
        self._clients = clients
        self._lock = threading.Lock()
        self._asking: list[Future[Node]] = []
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._held: WeakKeyDictionary[Any, asyncio.AbstractEventLoop | None] = WeakKeyDictionary()

    def ask(self) -> Future[Node]:
        """Return the master, once the Sentinels have said it; it raises MasterNotFoundError when they name none."""
        answered: Future[Node] = Future()
        with self._lock:
            self._asking.append(answered)
            if self._thread is None or not self._thread.is_alive():  # as in a child that was forked
                self._thread = threading.Thread(target=self._serve, name="sentinels", daemon=True)
                self._thread.start()
        self._wanted.set()
        return answered

    def discover_master(self, _service: str) -> Node:
        """Return the master; redis-py's SentinelConnectionPool calls it by this name."""
        return self.ask().result()

    def hold(self, connection: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Cut a connection of redis-py's once its node is not the master. loop: of an asynchronous one."""
        with self._lock:
            self._held[connection] = loop

    def _serve(self) -> None:
        while True:
            self._wanted.wait(until_tick(ASK_SECONDS))
            self._wanted.clear()
            with self._lock:
                asking = [each for each in self._asking if each.set_running_or_notify_cancel()]
                self._asking.clear()
            try:
                master = self._master()
            except Exception as error:  # noqa: BLE001 - whoever asks hears of it; what is connected stays so
                for each in asking:
                    each.set_exception(error)
                continue
            for each in asking:
                each.set_result(master)
            self._cut_others(master)

    def _master(self) -> Node:
        answers, errors = list[_Answer](), list[str]()
        for client in self._clients:
            try:
                answers += self._answer_of(client)
            except redis.AuthenticationError as error:
                errors.append(f"{error} (theirs is sentinel_password in the query)")
            except redis.RedisError as error:
                errors.append(str(error))
        if not answers:
            why = f": {errors[0]}" if errors else f", as none of them knows service {self.service!r}"
            raise MasterNotFoundError(f"no Sentinel names a master{why}")
        best = max(answers)
        if not best.is_up:
            raise MasterNotFoundError("the master is down, and the Sentinels have no other yet")
        return best.master

    def _answer_of(self, client: redis.Redis) -> list[_Answer]:
        found = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)
        if not found:
            return []
        state = client.execute_command("SENTINEL MASTER", self.service)
        master = Node(*found)
        is_down = state["is_sdown"] or state["is_odown"]
        # While it fails over, the address is the new master's already, and the state is the old one's still.
        return [_Answer(state["config-epoch"], not is_down or master != (state["ip"], state["port"]), master)]

    def _cut_others(self, master: Node) -> None:
        with self._lock:
            others = [(each, loop) for each, loop in self._held.items() if (each.host, each.port) != master]
        cut = [_cut(connection, loop) for connection, loop in others]
        if any(cut):
            logger.warning("the master is now %s:%d: closed %d connections to other nodes", *master, sum(cut))


def _cut(connection: Any, loop: asyncio.AbstractEventLoop | None) -> bool:
    """Cut a connection, if it is open; whoever uses it notices."""
    opened = connection._writer if loop else connection._sock
    if opened is None:
        return False
    with suppress(OSError, RuntimeError):  # it, or its loop, has been closed meanwhile
        if loop:
            loop.call_soon_threadsafe(opened.transport.abort)
        else:
            opened.shutdown(socket.SHUT_RDWR)
    return True
