"""What is served while its sockets move between interfaces, and clients that notice anything wrong about it.

Each client sends numbers without waiting for their echoes. Its consumer counts in the connection's state, so each
echo is "number:count:connection" with both alike, or something was lost or ran twice. Each number goes to a group of
all clients too, who expect every other's in order and once. What disconnects is noted in a file, once for each.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from asgictl import Application, Group, Message, channels1, path
from asgictl.wire.messages import ABNORMAL_CLOSURE

HELD = "MOVING_HELD"  # the file for which whoever is held waits
NOTES = "MOVING_NOTES"  # the file of whose disconnect consumer ran, a line each
PACE_SECONDS = 0.05
ON_THEIR_WAY = 4  # numbers of a client that are not echoed
ANSWER_SECONDS = 100.0  # for an echo
SETTLE_SECONDS = 60.0  # after the end, for what is on its way
LARGE = 50_000


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def enter(message: Message) -> None:
    message.accept()
    if message.query_string != b"alone":
        message.join("room")


def count(message: Message) -> None:
    """Take NAME NUMBER, and echo; NAME NUMBER PAUSE takes so many seconds; `large NUMBER` echoes much more.

    `held NUMBER` waits for the file HELD.
    """
    name, number, *pause = str(message.text).split()
    for seconds in pause:
        time.sleep(float(seconds))
    while name == "held" and not Path(os.environ[HELD]).exists():
        time.sleep(0.02)
    message.state["count"] = message.state.get("count", 0) + 1
    if message.query_string != b"alone":
        Group("room").send(text=f"said {name} {number}")
    connection = message.id.rpartition(":")[0]
    message.reply(text=f"{number}:{message.state['count']}:{connection}" + "." * (LARGE if name == "large" else 0))


def left(message: Message) -> None:
    if name := os.environ.get(NOTES):
        with Path(name).open("ab", buffering=0) as notes:
            notes.write(message.id.rpartition(":")[0].encode() + b"\n")


def tell_name(message: channels1.Message) -> None:
    assert message.reply_channel
    message.reply_channel.send({"accept": True})
    message.reply_channel.send({"text": str(message.reply_channel)})


def say_back(message: channels1.Message) -> None:
    assert message.reply_channel
    message.reply_channel.send({"text": message["text"]})


remembered = channels1.application(
    [channels1.route("websocket.connect", tell_name), channels1.route("websocket.receive", say_back)]
)
app = Application(http=site, websocket=[path("/room", connect=enter, receive=count, disconnect=left)])


class Client:
    """One socket. heard: the last number of each of its group. progress: when it last heard an echo, or ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connection = ""
        self.sent = self.echoed = 0
        self.heard: dict[str, int] = {}
        self.code = 0  # that it was closed with
        self.progress = time.monotonic()


class Clients:
    """Clients in a thread of their own, from `with` to its end. wrong: one line for each thing that must not be.

    visitors: clients that open, are answered once and leave, over and over. asks: whether requests go beside.
    alone: whether they are in no group.
    """

    def __init__(self, port: int, sockets: int, *, visitors: int = 0, asks: bool = False, alone: bool = False) -> None:
        self._port = port
        self._visitors = visitors
        self._asks = asks
        self._alone = alone
        self.each = [Client(f"c{number}") for number in range(sockets)]
        self.wrong: list[str] = []
        self.visits = self.requests = 0
        self.longest_stall_seconds = 0.0
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Clients":
        self._thread.start()
        assert self._ready.wait(60), "the clients have not opened"
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stopping.set()
        self._thread.join()
        print(f"{sum(each.echoed for each in self.each)} echoes, longest stall {self.longest_stall_seconds:.2f} s")

    @property
    def codes(self) -> Counter[int]:
        """How many sockets the server closed, by code."""
        return Counter(each.code for each in self.each if each.code)

    def flowed(self, since: float) -> bool:
        """Whether each client has ended, or was echoed something after that time."""
        return all(each.code or each.progress > since for each in self.each) or bool(self.wrong)

    async def _run(self) -> None:
        opened = await asyncio.gather(*(self._open("?alone" if self._alone else "") for _ in self.each))
        async with asyncio.TaskGroup() as group:
            for client, ws in zip(self.each, opened, strict=True):
                group.create_task(self._talk(client, ws))
            for _ in range(self._visitors):
                group.create_task(self._visit())
            if self._asks:
                group.create_task(self._ask())

    async def _open(self, query: str = "") -> ClientConnection:
        url = f"ws://127.0.0.1:{self._port}/room{query}"
        return await connect(url, compression=None, proxy=None, open_timeout=60, ping_interval=None)

    async def _talk(self, client: Client, ws: ClientConnection) -> None:
        sending = asyncio.create_task(self._send(client, ws))
        try:
            while not (self._stopping.is_set() and self._is_whole(client)):
                try:
                    self._take(client, await asyncio.wait_for(ws.recv(decode=True), 0.5))
                except TimeoutError:
                    if not self._is_whole(client) and time.monotonic() - client.progress > self._patience():
                        self.wrong.append(f"{client.name} waits after {client.echoed} of {client.sent}, {client.heard}")
                        break
        except ConnectionClosed as error:
            client.code = error.rcvd.code if error.rcvd else ABNORMAL_CLOSURE
            client.progress = time.monotonic()
        finally:
            sending.cancel()
            await ws.close()

    def _patience(self) -> float:
        return SETTLE_SECONDS if self._stopping.is_set() else ANSWER_SECONDS

    def _is_whole(self, client: Client) -> bool:
        """Whether it has heard all that it is to hear; of those that were closed nobody knows what they last said."""
        if client.echoed < client.sent or self._alone:
            return client.echoed >= client.sent
        return all(client.heard.get(each.name, 0) >= each.echoed for each in self.each if not each.code)

    async def _send(self, client: Client, ws: ClientConnection) -> None:
        began: dict[int, float] = {}
        while not self._stopping.is_set():
            if client.sent - client.echoed < ON_THEIR_WAY:
                client.sent += 1
                await ws.send(f"{client.name} {client.sent}")
                began[client.sent] = time.monotonic()
            for number in [each for each in began if each <= client.echoed]:
                self.longest_stall_seconds = max(self.longest_stall_seconds, client.progress - began.pop(number))
            await asyncio.sleep(PACE_SECONDS)

    def _take(self, client: Client, text: str) -> None:
        if text.startswith("said "):
            _, name, number = text.split()
            due = client.heard.get(name, int(number) - 1) + 1
            if int(number) != due:
                self.wrong.append(f"{client.name} heard {text} where {due} was due")
            client.heard[name] = int(number)
            return
        number, count, client.connection = text.split(":")
        if not client.echoed + 1 == int(number) == int(count):
            self.wrong.append(f"{client.name} heard {text} after {client.echoed}")
        client.echoed, client.progress = int(number), time.monotonic()
        if client.echoed == 1 and all(each.echoed for each in self.each):
            self._ready.set()

    async def _visit(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS), await self._open("?alone") as ws:
                    await ws.send("visitor 1")
                    answer = await ws.recv(decode=True)
                    self.visits += 1
                    if not answer.startswith("1:1:"):
                        self.wrong.append(f"a visitor heard {answer}")
            except (OSError, TimeoutError, EOFError, InvalidHandshake, ConnectionClosed) as error:
                self.wrong.append(f"a visitor: {error!r}")

    async def _ask(self) -> None:
        while not self._stopping.is_set():
            try:
                (await asyncio.to_thread(urlopen, f"http://127.0.0.1:{self._port}/", timeout=ANSWER_SECONDS)).close()
                self.requests += 1
            except OSError as error:
                self.wrong.append(f"a request failed: {error}")
            await asyncio.sleep(PACE_SECONDS)


def disconnects(notes: Path) -> Counter[str]:
    """Return how often each connection's disconnect consumer ran."""
    return Counter(notes.read_text().split() if notes.exists() else ())
