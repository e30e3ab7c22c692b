"""A proxy before a Redis that fails as networks do: without a word. On loopback alone."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import psutil

from asgictl.loadtests.servers import free_port

HEARD_BYTES = 64 << 10  # of what a client says, kept to know it by
CONNECT_SECONDS = 5.0


class Proxy:
    """Forwards connections to the Redis at `url`, from `with` to its end, in a thread of its own. url: for clients."""

    def __init__(self, url: str) -> None:
        self._target = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.pairs: set[Pair] = set()
        self._server: asyncio.Server | None = None
        self._port = free_port()
        self.is_stalled = False
        self.url = f"redis://127.0.0.1:{self._port}"

    def __enter__(self) -> "Proxy":
        self._thread.start()
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
                for pair in self.pairs
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
        self._do(lambda: self._settle(True))

    def go(self) -> None:
        """Forward what was held, and go on."""
        self._do(lambda: self._settle(False))

    def leave(self) -> None:
        """End every connection and refuse others, until come_back()."""
        if server := self._server:
            self._server = None
            self._do(server.close)
            self._do(self._cut)
            self._run(server.wait_closed())

    def come_back(self) -> None:
        """Listen again."""
        self._server = self._run(self._loop.create_server(lambda: Pair(self).client, "127.0.0.1", self._port))

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Open a connection to Redis; raises OSError."""
        async with asyncio.timeout(CONNECT_SECONDS):
            if self._target.startswith("unix://"):
                await self._loop.create_unix_connection(lambda: protocol, self._target.removeprefix("unix://"))
            else:
                host, _, port = self._target.removeprefix("redis://").partition(":")
                await self._loop.create_connection(lambda: protocol, host, int(port))

    def _settle(self, is_stalled: bool) -> None:
        self.is_stalled = is_stalled
        for pair in self.pairs:
            pair.settle()

    def _cut(self) -> None:
        for pair in list(self.pairs):
            pair.abort()

    def _do(self, act: Callable[[], Any]) -> Any:
        async def do() -> Any:
            return act()

        return self._run(do())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * CONNECT_SECONDS)


class Pair:
    """A client's connection, and the one to Redis that stands for it. port: the client's own."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client, self.server = End(self), End(self)
        self.port = 0
        self.heard = b""
        self.is_frozen = False
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def begin(self, end: "End") -> None:
        if end is self.client and end.transport:
            self.port = end.transport.get_extra_info("peername")[1]
            self.proxy.pairs.add(self)
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        for early in self._early if end is self.server else ():
            self.carry(self.client, early)
        self.settle()

    async def _connect(self) -> None:
        try:
            await self.proxy.connect(self.server)
        except (OSError, TimeoutError):
            self.abort()

    def carry(self, source: "End", data: bytes) -> None:
        if source is self.client and len(self.heard) < HEARD_BYTES:
            self.heard += data
        sink = self.server if source is self.client else self.client
        if self.is_frozen:
            return
        if sink.transport is None:
            self._early.append(data)
        else:
            sink.transport.write(data)

    def settle(self) -> None:
        """Read of either end what may be forwarded now."""
        for end, other in ((self.client, self.server), (self.server, self.client)):
            if end.transport and not end.transport.is_closing():
                held = self.proxy.is_stalled or other.is_full
                (end.transport.pause_reading if held else end.transport.resume_reading)()

    def end(self, ended: "End") -> None:
        """One end has closed. Nobody tells the other of it when frozen: Redis keeps what it thinks is a client."""
        other = self.server if ended is self.client else self.client
        ended.is_over = True
        if other.transport and not self.is_frozen:
            other.transport.close()
        if self.client.is_over and (self.server.is_over or self.server.transport is None):
            self.proxy.pairs.discard(self)

    def abort(self) -> None:
        for end in (self.client, self.server):
            if end.transport:
                end.transport.abort()


class End(asyncio.Protocol):
    """One connection of a pair."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.transport: asyncio.Transport | None = None
        self.is_full = False
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's
        self.transport = transport
        self._pair.begin(self)

    def data_received(self, data: bytes) -> None:
        self._pair.carry(self, data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._pair.end(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self._pair.settle()

    def resume_writing(self) -> None:
        self.is_full = False
        self._pair.settle()


def owned() -> dict[int, str]:
    """Return supervisord's group of the process that owns each local port, of those that one has."""
    found: dict[int, str] = {}
    for connection in psutil.net_connections("tcp4"):
        if connection.pid and connection.laddr:
            with suppress(psutil.Error):  # it has ended
                if group := psutil.Process(connection.pid).environ().get("SUPERVISOR_GROUP_NAME"):
                    found[connection.laddr.port] = group
    return found
