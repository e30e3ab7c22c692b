"""Clients of a server that is deployed, in a process of their own: requests and WebSockets, none of which tries again.

A request is sent once, as by http.client: on a connection that is kept, whatever became of it meanwhile, or on a fresh
one. What a client with a pool of connections would notice before it sends is counted apart: the server had closed the
connection already, without having said so in its last answer.
"""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from asgictl.wire.messages import ABNORMAL_CLOSURE
from benchmarks.closed_loop import exchange, get

KEPT, FRESH = "keep-alive", "fresh"
CLIENTS = {KEPT: 35, FRESH: 10}  # of ten requests a second each
PAUSE_SECONDS = 0.1
VISITORS = 10  # sockets that open, talk and leave, one a second each
TALK_SECONDS = 1.0
LAG_SECONDS = 0.02
ANSWER_SECONDS = 10.0  # for an answer, a handshake and an echo
READY_SECONDS = 30.0
STOP_SECONDS = 30.0
SILENT = 0  # where a socket has no code: its echo did not come
RELOAD, STOP = "reload", "stop"


@dataclass
class Counts:
    """What clients saw. closed: sockets, by code; again: those closed for the second time since a reload began.

    requests, failed: by kind of connection. unannounced: of those that failed, sent after the server had closed.
    lag_seconds: the longest by which the clients' own event loop was late.
    """

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unannounced: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    closed: Counter[int] = field(default_factory=Counter)
    again: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    lag_seconds: float = 0.0


class Load:
    """The clients' process, from `with` to its end; `counts` are there then. sockets: whether there are WebSockets."""

    def __init__(self, port: int, sockets: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(target=run, args=(port, sockets, theirs), daemon=True)
        self._theirs = theirs
        self.counts = Counts()

    def __enter__(self) -> "Load":
        self._process.start()
        self._theirs.close()
        self._receive(READY_SECONDS)
        return self

    def reload(self) -> None:
        """Say that a reload begins."""
        self._send(RELOAD)

    def __exit__(self, *_raised: object) -> None:
        self._send(STOP)
        self.counts = self._receive(STOP_SECONDS)
        self._process.join(STOP_SECONDS)

    def _send(self, word: str) -> None:
        try:
            self._pipe.send(word)
        except OSError:
            raise RuntimeError("the load generator has ended: its traceback is above") from None

    def _receive(self, seconds: float) -> Counts:
        if not self._pipe.poll(seconds):
            self._process.kill()
            raise RuntimeError(f"the load generator said nothing for {seconds:.0f} s")
        counts: Counts = self._pipe.recv()
        return counts


def run(port: int, sockets: int, pipe: Connection) -> None:
    """Be the clients' process."""
    uvloop.run(Clients(port, pipe).run(sockets))


class Clients:
    """All clients of one server."""

    def __init__(self, port: int, pipe: Connection) -> None:
        self._port, self._pipe = port, pipe
        self._stopping = asyncio.Event()
        self._closed_since = set[int]()  # the reload's beginning: sockets
        self.counts = Counts()

    async def run(self, sockets: int) -> None:
        """Send until the parent says stop."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._hear)
        clients = [self._ask(kind) for kind, count in CLIENTS.items() for _ in range(count)]
        if sockets:
            clients += [self._hold(number) for number in range(sockets)]
            clients += [self._visit(sockets + number) for number in range(VISITORS)]
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate([self._watch(), *clients]):
                group.create_task(self._after(PAUSE_SECONDS * number / len(clients), client))
            self._pipe.send(self.counts)  # ready
        self._pipe.send(self.counts)

    def _hear(self) -> None:
        if self._pipe.recv() == STOP:
            self._stopping.set()
        else:
            self._closed_since.clear()

    async def _after(self, seconds: float, client: Coroutine[None, None, None]) -> None:
        """Have clients begin one after another, so that they are spread."""
        await asyncio.sleep(seconds)
        await client

    async def _watch(self) -> None:
        while not self._stopping.is_set():
            due = perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.counts.lag_seconds = max(self.counts.lag_seconds, perf_counter() - due)

    async def _ask(self, kind: str) -> None:
        request = get("/") if kind == KEPT else get("/", "Connection: close")
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopping.is_set():
            began, kept = perf_counter(), False
            closed = connection is not None and has_closed(connection[0])
            self.counts.requests[kind] += 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                    answer, kept = await exchange(*connection, request)
                if answer.status != 200:
                    self._fail(kind, f"status {answer.status}")
            except (OSError, EOFError) as error:
                self.counts.unannounced += closed
                self._fail(kind, f"{type(error).__name__}{' on a closed connection' if closed else ''}")
            took = perf_counter() - began
            self.counts.longest_seconds = max(self.counts.longest_seconds, took)
            if connection and not (kept and kind == KEPT):
                connection[1].close()
                connection = None
            await asyncio.sleep(max(0, PAUSE_SECONDS - took))
        if connection:
            connection[1].close()

    def _fail(self, kind: str, why: str) -> None:
        self.counts.failed[kind] += 1
        self.counts.errors[f"{kind}: {why}"] += 1

    async def _hold(self, number: int) -> None:
        while not self._stopping.is_set():
            await self._open(number, self._talk)

    async def _visit(self, number: int) -> None:
        while not self._stopping.is_set():
            await self._open(number, echo)
            await asyncio.sleep(TALK_SECONDS)

    async def _open(self, number: int, use: Callable[[ClientConnection], Coroutine[None, None, None]]) -> None:
        """Open a socket and use it, until it is closed."""
        self.counts.handshakes += 1
        try:
            url = f"ws://127.0.0.1:{self._port}/ws"
            ws = await connect(url, compression=None, proxy=None, open_timeout=ANSWER_SECONDS, close_timeout=1)
        except (OSError, EOFError, InvalidHandshake, ConnectionClosed) as error:
            self.counts.handshakes_failed += 1
            self.counts.errors[f"handshake: {type(error).__name__}"] += 1
            await asyncio.sleep(PAUSE_SECONDS)
            return
        try:
            await use(ws)
        except ConnectionClosed as error:
            self._note(number, error.rcvd.code if error.rcvd else ABNORMAL_CLOSURE)
        except TimeoutError:
            self._note(number, SILENT)
        finally:
            await ws.close()

    def _note(self, number: int, code: int) -> None:
        self.counts.closed[code] += 1
        self.counts.again += number in self._closed_since
        self._closed_since.add(number)

    async def _talk(self, ws: ClientConnection) -> None:
        while not self._stopping.is_set():
            await echo(ws)
            try:
                await asyncio.wait_for(ws.recv(), TALK_SECONDS)
            except TimeoutError:  # as it should be: nobody speaks
                continue


async def echo(ws: ClientConnection) -> None:
    """Send a message and wait for its echo."""
    await ws.send("hello")
    await asyncio.wait_for(ws.recv(), ANSWER_SECONDS)


def has_closed(reader: asyncio.StreamReader) -> bool:
    """Return whether the server has closed a connection, as seen from here."""
    return reader.at_eof() or reader.exception() is not None
