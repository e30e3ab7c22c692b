"""An application and its clients that notice anything lost, repeated or out of order.

Each socket sends 1, 2, 3 ...; its consumer counts in the connection's state and replies "number:count", so the two
agree for ever or something was lost or ran twice with effect. Each message also goes to a group, whose listeners
expect every sender's numbers in order and once. HTTP requests go beside. `asgi` counts by itself, so a socket of it
begins anew wherever it is opened again.
"""

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle, islice
from typing import Any
from urllib.request import urlopen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from asgictl import Application, Group, Message, path
from asgictl.wire.messages import ABNORMAL_CLOSURE
from benchmarks import applications
from benchmarks.closed_loop import Answer, ask

ANSWER_SECONDS = 60
LISTEN_SECONDS = 60  # after the end, for what is on its way to listeners
SLOWLY_SECONDS = 0.4  # that a turn of /slowly takes, so that most sockets have one in flight
CLIENT_RATE = 10  # requests a second of each client


def accept(message: Message) -> None:
    message.accept()
    if message.query_string == b"listen":
        message.join("numbers")


def count(message: Message) -> None:
    message.state["count"] = message.state.get("count", 0) + 1
    sender, _, number = str(message.text).partition(" ")
    Group("numbers").send(text=f"{sender} {number}")
    message.reply(text=f"{number}:{message.state['count']}")


async def count_slowly(message: Message) -> None:
    await asyncio.sleep(SLOWLY_SECONDS)
    count(message)


app = Application(
    http=applications.wsgi,
    websocket=[path("/numbers", connect=accept, receive=count), path("/slowly", connect=accept, receive=count_slowly)],
)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Plain ASGI of sockets without a group, and of requests."""
    if scope["type"] != "websocket":
        return await applications.asgi(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    counted, pause_seconds = 0, SLOWLY_SECONDS if scope["path"] == "/slowly" else 0
    while (message := await receive())["type"] == "websocket.receive":
        counted += 1
        await asyncio.sleep(pause_seconds)
        await send({"type": "websocket.send", "text": f"{message['text'].split()[1]}:{counted}"})
    return None


def kind_of(due: int, heard: int) -> str:
    """Return what has happened where one number was due and another came: the one before is a repetition."""
    return "lost" if heard > due else "repeated" if heard == due - 1 else "reordered"


@dataclass
class Load:
    """Clients in a thread of their own, from `with` to its end. wrong: one line for each thing that must not be.

    kinds: how many of those were lost, repeated, reordered.

    requests_per_second: 0 for one request after the other, pace_seconds apart.
    again: sockets that the server closes open again, and are counted in `closed`, by code.
    paths: where sockets connect, in turn. answer_seconds: after which an echo counts as lost.
    prefix: of the sockets' names, which tells this load's from those of others of the same application.
    """

    url: str
    _: KW_ONLY
    sockets: int
    pace_seconds: float = 0.1
    listeners: int = 2
    http: bool = True
    requests_per_second: float = 0
    again: bool = False
    paths: Sequence[str] = ("/numbers",)
    answer_seconds: float = ANSWER_SECONDS
    prefix: str = "s"

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._sent: dict[str, int] = defaultdict(int)
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._ready = threading.Event()
        self._give_up_at = math.inf
        self.wrong: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.messages = 0
        self.requests = 0
        self.failed = 0  # requests, each with its line in `wrong`
        self.longest_stall_seconds = 0.0

    def __enter__(self) -> "Load":
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *_raised: object) -> None:
        self._give_up_at = time.monotonic() + LISTEN_SECONDS
        self._stopping.set()
        self._thread.join()
        print(f"{self.messages} messages, {self.requests} requests, longest stall {self.longest_stall_seconds:.2f} s")

    def began(self) -> list[float]:
        """Return when each socket sent what was answered last, by time.monotonic(); 0 for none yet."""
        return [self._began.get(f"{self.prefix}{number}", 0) for number in range(self.sockets)]

    def ended(self) -> list[float]:
        """Return when each socket was answered last, or closed; 0 for not yet."""
        return [self._ended.get(f"{self.prefix}{number}", 0) for number in range(self.sockets)]

    @property
    def in_flight(self) -> int:
        """How many sockets wait for an echo now."""
        return len(self._waiting)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.listeners):
                group.create_task(self._listen())
            paths = islice(cycle(self.paths), self.sockets)
            sending = [
                group.create_task(self._send(f"{self.prefix}{number}", path)) for number, path in enumerate(paths)
            ]
            if self.requests_per_second:
                clients = math.ceil(self.requests_per_second / CLIENT_RATE)
                pause = clients / self.requests_per_second
                sending += [group.create_task(self._ask_steadily(pause)) for _ in range(clients)]
            elif self.http:
                sending.append(group.create_task(self._ask()))
            self._ready.set()
            await asyncio.wait(sending)

    async def _send(self, name: str, path: str) -> None:
        while not self._stopping.is_set():
            try:
                await self._talk(name, path)
                return  # it is over, or went wrong
            except ConnectionClosed as error:
                self._ended[name] = time.monotonic()
                self.closed[error.rcvd.code if error.rcvd else ABNORMAL_CLOSURE] += 1
                if not self.again:
                    self.wrong.append(f"{name} was closed: {error}")
                    return
                self._sent[name] = 0
            except TimeoutError:
                self.kinds["lost"] += 1
                self.wrong.append(f"{name} heard nothing for {self.answer_seconds} s after {self._sent[name]}")
                return
            except (OSError, InvalidHandshake) as error:
                self.wrong.append(f"{name} could not connect: {error}")
                if not self.again:
                    return
                await asyncio.sleep(self.pace_seconds)

    async def _talk(self, name: str, path: str) -> None:
        async with connect(self.url.replace("http", "ws") + path, open_timeout=60) as ws:
            while not self._stopping.is_set():
                number = self._sent[name] + 1
                self._sent[name] = number
                began = time.monotonic()
                self._waiting.add(name)
                await ws.send(f"{name} {number}")
                answer = await asyncio.wait_for(ws.recv(decode=True), self.answer_seconds)
                self._waiting.discard(name)
                self.longest_stall_seconds = max(self.longest_stall_seconds, time.monotonic() - began)
                self.messages += 1
                self._began[name], self._ended[name] = began, time.monotonic()
                if answer != f"{number}:{number}":
                    self.kinds[kind_of(number, max(map(int, answer.split(":"))))] += 1
                    self.wrong.append(f"{name} sent {number}, heard {answer}")
                    return
                await asyncio.sleep(self.pace_seconds)

    async def _listen(self) -> None:
        heard: dict[str, int] = {}
        try:
            async with connect(self.url.replace("http", "ws") + "/numbers?listen", open_timeout=60) as ws:
                while not self._stopping.is_set() or heard != self._sent:
                    try:
                        sender, _, number = (await asyncio.wait_for(ws.recv(decode=True), 1)).partition(" ")
                    except TimeoutError:
                        if time.monotonic() > self._give_up_at:
                            missing = {
                                name: (heard.get(name), n) for name, n in self._sent.items() if heard.get(name) != n
                            }
                            self.kinds["lost"] += len(missing)
                            self.wrong.append(f"a listener misses {missing}")
                            return
                        continue
                    if sender not in self._sent:
                        continue  # another load's
                    if int(number) != (due := heard.get(sender, int(number) - 1) + 1):
                        self.kinds[kind_of(due, int(number))] += 1
                        self.wrong.append(f"a listener heard {sender} {number} after {heard.get(sender)}")
                    heard[sender] = int(number)
        except ConnectionClosed as error:
            self.wrong.append(f"a listener was closed: {error}")

    async def _ask(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                (await asyncio.to_thread(urlopen, self.url + "/", timeout=ANSWER_SECONDS)).close()
                self.requests += 1
                self.longest_stall_seconds = max(self.longest_stall_seconds, time.monotonic() - began)
            except OSError as error:
                self._note_failure(error)
            await asyncio.sleep(self.pace_seconds)

    async def _ask_steadily(self, pause_seconds: float) -> None:
        port = int(self.url.rpartition(":")[2])
        while not self._stopping.is_set():
            try:
                await ask(port, "/", 1, self._hear, pause_seconds)
            except (OSError, EOFError) as error:
                self._note_failure(error)
                await asyncio.sleep(pause_seconds)

    def _hear(self, answer: Answer) -> None:
        self.requests += 1
        self.longest_stall_seconds = max(self.longest_stall_seconds, answer.seconds)
        if answer.status != 200:
            self._note_failure(answer.status)

    def _note_failure(self, why: object) -> None:
        self.failed += 1
        self.wrong.append(f"a request failed: {why}")
