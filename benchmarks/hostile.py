"""Clients that mean harm: what they cost in memory, and their neighbours in time.

Attackers run in a process of their own, as `python -m benchmarks.hostile NAME PORT SECONDS`, which prints what came of
them. Neighbours send requests and echoes at a steady pace, alone first and then beside them.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing, suppress
from itertools import cycle
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from asgictl import Application, Message, path
from asgictl.app.runtime import raise_file_limit
from asgictl.loadtests.servers import Server, Side, serving
from benchmarks import applications, verdicts
from benchmarks.closed_loop import Answer, ask
from benchmarks.memory import Memory
from benchmarks.verdicts import Reading

TARGET = "benchmarks.hostile:app"
MODES = {
    "split": "--workers 2 --exclude-channels '*.late'",  # nobody answers these handshakes
    "in-process": "--mode inprocess --workers 1",
}
NEIGHBOURS = 10  # that send requests; and as many sockets
PAUSE_SECONDS = 0.02
ALONE_SECONDS, BESIDE_SECONDS = 5, 20  # two times over those that unfinished headers have
DRIPPING, ENDLESS, PINGING, FRAGMENTING, HANDSHAKES = 2000, 20, 100, 20, 10_000
DRIP_SECONDS = 1.0
PIECE_BYTES = 4096
QUICKLY_REFUSED, LATE_REFUSED = 20, 900  # handshakes under way
LATE_SECONDS = 6  # more than a handshake may take
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: "
PING = b"\x89\x80\0\0\0\0"
BEGIN, FRAGMENT = b"\x01\x81\0\0\0\0a", b"\x00\x81\0\0\0\0a"


async def late(_message: Message) -> None:
    await asyncio.sleep(LATE_SECONDS)


app = Application(
    http=applications.wsgi,
    websocket=[
        path("/ws", connect=applications.accept, receive=applications.say_back),
        path("/late", connect=late, pool="late"),
    ],
)


def handshake(path: str, *headers: str) -> bytes:
    """Return the bytes of a WebSocket's handshake."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Attack:
    """Attackers of one process. seen: how often something came of one, by its status or otherwise."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port = port
        self.until = time.monotonic() + seconds
        self.seen: Counter[str] = Counter()

    async def again(self, attack: Callable[[socket.socket], Awaitable[None]], buffer: int = 0) -> None:
        """Attack on one connection after another, each until it ends."""
        loop = asyncio.get_running_loop()
        while (left := self.until - time.monotonic()) > 0:
            with closing(socket.socket()) as client, suppress(OSError):
                client.setblocking(False)
                if buffer:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                await loop.sock_connect(client, ("127.0.0.1", self.port))
                try:
                    async with asyncio.timeout(left):
                        await attack(client)
                except TimeoutError:
                    self.seen["open at the end"] += 1
                except OSError:
                    self.seen["cut"] += 1

    async def answered(self, client: socket.socket) -> None:
        """Note the status of what comes."""
        answer = await asyncio.get_running_loop().sock_recv(client, 1 << 16)
        self.seen[answer[9:12].decode() or "closed"] += 1

    async def drip(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        answer = loop.create_task(self.answered(client))
        try:
            for byte in cycle(HEAD + b"a" * PIECE_BYTES):
                await loop.sock_sendall(client, bytes((byte,)))
                if answer in (await asyncio.wait([answer], timeout=DRIP_SECONDS))[0]:
                    return
        finally:
            answer.cancel()

    async def endless(self, client: socket.socket) -> None:
        await self.flood(client, HEAD, b"a" * PIECE_BYTES)

    async def ping(self, client: socket.socket) -> None:
        await self.flood(client, handshake("/ws"), PING * (PIECE_BYTES // len(PING)), reads=False)

    async def fragment(self, client: socket.socket) -> None:
        await self.flood(client, handshake("/ws") + BEGIN, FRAGMENT * (PIECE_BYTES // len(FRAGMENT)))

    async def flood(self, client: socket.socket, first: bytes, then: bytes, *, reads: bool = True) -> None:
        """Send without end; until the server has closed, if its client reads that."""
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self.read(client)) if reads else loop.create_future()
        try:
            await loop.sock_sendall(client, first)
            while not reading.done():
                await loop.sock_sendall(client, then)
                self.seen["pieces"] += 1
                await asyncio.sleep(0)
        finally:
            reading.cancel()

    async def read(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(client, 1 << 16):
                self.seen[data[9:12].decode() if data.startswith(b"HTTP/") else "closed"] += 1

    async def refused(self, kinds: Iterator[bytes]) -> None:
        """Be refused, until there are no more."""
        loop = asyncio.get_running_loop()
        for kind in kinds:
            with closing(socket.socket()) as client:
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", self.port))
                await loop.sock_sendall(client, kind)
                await self.answered(client)


async def dripping(attack: Attack) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(number / DRIPPING * DRIP_SECONDS)
        await attack.again(attack.drip)

    await asyncio.gather(*map(one, range(DRIPPING)))


async def endless_headers(attack: Attack) -> None:
    await asyncio.gather(*(attack.again(attack.endless) for _ in range(ENDLESS)))


async def pings_unread(attack: Attack) -> None:
    await asyncio.gather(*(attack.again(attack.ping, buffer=PIECE_BYTES) for _ in range(PINGING)))


async def fragments(attack: Attack) -> None:
    await asyncio.gather(*(attack.again(attack.fragment) for _ in range(FRAGMENTING)))


async def refused_handshakes(attack: Attack) -> None:
    kinds = handshake("/ws", "Origin: http://elsewhere"), handshake("/nowhere"), handshake("/late")
    quick = iter([kinds[number % 2] for number in range(HANDSHAKES * 2 // 3)])
    slow = iter([kinds[2]] * (HANDSHAKES - HANDSHAKES * 2 // 3))
    await asyncio.gather(
        *(attack.refused(quick) for _ in range(QUICKLY_REFUSED)), *(attack.refused(slow) for _ in range(LATE_REFUSED))
    )


ATTACKS: dict[str, Callable[[Attack], Coroutine[Any, Any, None]]] = {
    "dripping": dripping,
    "endless headers": endless_headers,
    "pings unread": pings_unread,
    "fragments": fragments,
    "refused handshakes": refused_handshakes,
}


class Echo(WSListener):
    """A socket that sends at a steady pace."""

    def __init__(self, took: list[float]) -> None:
        self._took = took
        self._began = 0.0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._say(transport)

    def _say(self, transport: WSTransport) -> None:
        self._began = time.perf_counter()
        transport.send(WSMsgType.TEXT, b"hello there")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._took.append(time.perf_counter() - self._began)
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._say, transport)


async def neighbours(server: Server, seconds: float) -> tuple[list[float], list[float]]:
    """Return what requests took, and echoes. Raises RuntimeError unless all were answered."""
    answers: list[Answer] = []
    echoes: list[float] = []
    url = server.url.replace("http", "ws") + "/ws"
    sockets = [(await ws_connect(lambda: Echo(echoes), url))[0] for _ in range(NEIGHBOURS)]
    await asyncio.gather(*(ask(server.port, "/", seconds, answers.append, PAUSE_SECONDS) for _ in range(NEIGHBOURS)))
    for each in sockets:
        each.disconnect()
    if strange := {answer.status for answer in answers} - {200}:
        raise RuntimeError(f"neighbours were answered {strange}")
    return [answer.seconds for answer in answers], echoes


def hostile(_arguments: argparse.Namespace) -> Iterator[Reading]:
    for mode, options in MODES.items():
        for name in ATTACKS:
            with serving(Side(mode, f"asgictl start {TARGET} {options} --bind {{bind}} -d")) as server:
                yield from attacked(f"{mode}: {name}", server, name)


def attacked(title: str, server: Server, name: str) -> list[Reading]:
    alone = uvloop.run(neighbours(server, ALONE_SECONDS))
    command = [sys.executable, "-m", "benchmarks.hostile", name, str(server.port), str(BESIDE_SECONDS)]
    with Memory(server.pids()) as memory, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacking:
        beside = uvloop.run(neighbours(server, BESIDE_SECONDS))
        seen, _ = attacking.communicate()
        if attacking.returncode:
            raise RuntimeError(f"{title}: attackers failed")
    return verdicts.hostile(title, alone, beside, memory.before, memory.peak, seen.strip())


def main() -> None:
    raise_file_limit()
    name, port, seconds = sys.argv[1:]
    attack = Attack(int(port), float(seconds))
    uvloop.run(ATTACKS[name](attack))
    print(", ".join(f"{count} {what}" for what, count in attack.seen.most_common()))


if __name__ == "__main__":
    main()
