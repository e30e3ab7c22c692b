"""A proxy before a Redis that fails as networks do: without a word. On loopback alone."""

import asyncio
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from asgictl.loadtests.servers import free_port

HEARD_BYTES = 64 << 10  # of what a client says, kept to know it by
PIECE_BYTES = 64 << 10
CONNECT_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class Pair:
    """A client's connection, and the one to Redis that stands for it. port: the client's own."""

    port: int
    ends: list[StreamWriter]
    heard: bytes = b""
    is_frozen: bool = False


class Proxy:
    """Forwards connections to the Redis at `url`, from `with` to its end, in a thread of its own. url: for clients."""

    def __init__(self, url: str) -> None:
        self._target = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._pairs: dict[asyncio.Task[None], Pair] = {}  # by what forwards for it
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}"

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self.go()
        self.come_back()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def freeze(self, group: str = "", having: bytes = b"", without: bytes = b"") -> int:
        """Swallow whatever comes on connections that are open now, and end none of them; those that come are served.

        group: supervisord's, of the processes whose connections alone freeze. having, without: what those connections
        have said, and have not. Returns how many there are.
        """
        owners = owned() if group else {}

        def freeze() -> int:
            chosen = [
                pair
                for pair in self._pairs.values()
                if having in pair.heard
                and not (without and without in pair.heard)
                and (not group or owners.get(pair.port) == group)
            ]
            for pair in chosen:
                pair.is_frozen = True
            return len(chosen)

        count: int = self._do(freeze)
        return count

    def stall(self) -> None:
        """Forward nothing, of no connection, until go(); new ones are accepted."""
        self._do(self._flowing.clear)

    def go(self) -> None:
        """Forward what was held, and go on."""
        self._do(self._flowing.set)

    def leave(self) -> None:
        """End every connection and refuse others, until come_back()."""
        if server := self._server:
            self._server = None
            self._run(self._end(server))

    def come_back(self) -> None:
        """Listen again."""
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", self._port))

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task, pair in self._pairs.items():
            task.cancel()
            for end in pair.ends:
                end.transport.abort()
        if self._pairs:
            await asyncio.wait(self._pairs)
        await server.wait_closed()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        pair = Pair(writer.get_extra_info("peername")[1], [writer])
        task = self._loop.create_task(self._serve(pair, reader, writer))
        self._pairs[task] = pair
        task.add_done_callback(self._pairs.pop)

    async def _serve(self, pair: Pair, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                from_redis, to_redis = await self._connect()
        except OSError:  # a timeout is one
            writer.transport.abort()
            return
        pair.ends.append(to_redis)
        await asyncio.gather(self._carry(pair, reader, to_redis), self._carry(pair, from_redis, writer))

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        if self._target.startswith("unix://"):
            return await asyncio.open_unix_connection(self._target.removeprefix("unix://"))
        host, _, port = self._target.removeprefix("redis://").partition(":")
        return await asyncio.open_connection(host, int(port))

    async def _carry(self, pair: Pair, source: StreamReader, sink: StreamWriter) -> None:
        """Forward one way. Nobody tells `sink` of the end when frozen: Redis keeps what it thinks is a client."""
        with suppress(OSError):  # either has closed
            while data := await source.read(PIECE_BYTES):
                if sink is not pair.ends[0] and len(pair.heard) < HEARD_BYTES:
                    pair.heard += data
                await self._flowing.wait()
                if not pair.is_frozen:
                    sink.write(data)
                    await sink.drain()
        if not pair.is_frozen:
            sink.close()

    def _do(self, act: Callable[[], Any]) -> Any:
        async def do() -> Any:
            return act()

        return self._run(do())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * CONNECT_SECONDS)


def owned() -> dict[int, str]:
    """Return supervisord's group of the process that owns each local port, of those that one has."""
    found: dict[int, str] = {}
    for connection in psutil.net_connections("tcp4"):
        if connection.pid and connection.laddr:
            with suppress(psutil.Error):  # it has ended
                if group := psutil.Process(connection.pid).environ().get("SUPERVISOR_GROUP_NAME"):
                    found[connection.laddr.port] = group
    return found
