"""One asyncio connection to Redis that batches: what a turn of the event loop sends goes out in one write.

redis-py connects: it parses the URL, authenticates and does TLS. Then this protocol takes its transport over and
talks through hiredis alone, which measured two to three times the commands a second of redis-py's own asyncio client.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError as ClientError

from asgictl.layers.base import NotSent
from asgictl.machine import forks

logger = logging.getLogger("asgictl.layers")
# So says a Redis that is not itself, or may not write now, and has done nothing; 6.2 of the first write of a script in
# words of its own.
AWAY = re.compile(
    "((ERR )?Error running script .* -)?"
    "(LOADING|MASTERDOWN|READONLY|BUSY|TRYAGAIN|CLUSTERDOWN|ASK|MOVED|NOREPLICAS|MISCONF) "
)
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # Redis restarts in a few tenths of a second; then once a second


def pack(command: tuple[str | bytes | int, ...]) -> bytes:
    """Return a command in Redis's protocol."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows one-tuples alone
    return packed


class Link(asyncio.Protocol):
    """A connection that comes back by itself. What a Redis that is not yet itself refuses counts as not sent.

    restored: awaited after each connect, before `up` is set, with the link ready for commands.
    """

    def __init__(self, url: str, restored: Callable[[], Any] | None = None) -> None:
        self._url = url
        self._restored = restored
        self._reader = hiredis.Reader()
        self._waiting: deque[Callable[[Any], None]] = deque()
        self._output: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._connection: AbstractConnection | None = None  # owns the stream objects behind the transport
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.up = False
        forks.hold(self)

    def fileno(self) -> int:
        """Return the open file of the connection, -1 while there is none."""
        held = self._transport and self._transport.get_extra_info("socket")
        return held.fileno() if held else -1

    async def start(self) -> None:
        """Connect; raises redis-py's errors when the first attempt fails. From then on, reconnect for ever."""
        await self._connect()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Close for good."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._close()

    def call(self, *command: str | bytes | int, answered: Callable[[Any], None]) -> None:
        """Send a command. `answered` gets the reply, or an exception: hiredis's ReplyError, or ConnectionError."""
        if self._transport is None:
            asyncio.get_running_loop().call_soon(answered, NotSent("Redis is away"))
            return
        if not self._output:
            asyncio.get_running_loop().call_soon(self._flush)
        self._output.append(pack(command))
        self._waiting.append(answered)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send a command and wait for its reply; raises what call() would give to its callback."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(reply: Any) -> None:
            if not future.done():
                future.set_result(reply)

        self.call(*command, answered=answered)
        reply = await future
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            await self._close()
            attempt = 0
            while not self.up:
                await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
                attempt += 1
                try:
                    await self._connect()
                except (OSError, ClientError, hiredis.ReplyError) as error:  # away, loading or not yet itself: go on
                    await self._close()
                    if attempt in {1, 10} or attempt % 60 == 0:
                        logger.warning("Redis is away (attempt %d): %s", attempt, error)
            if attempt > 1:
                logger.warning("Redis is back")

    async def _connect(self) -> None:
        options: dict[str, Any] = {**parse_url(self._url), "protocol": 2}
        connection: AbstractConnection = options.pop("connection_class", Connection)(**options)
        await connection.connect()
        self._connection = connection
        self._reader = hiredis.Reader()
        self._lost.clear()
        # The one private name that we lean on: redis-py has no public way to hand over what it has connected.
        transport = connection._writer.transport  # type: ignore[union-attr]
        transport.set_protocol(self)
        self._transport = cast(asyncio.Transport, transport)
        if self._restored:
            await self._restored()
        self.up = True

    def drop(self) -> None:
        """Let go of this connection, and connect anew."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        output, self._output = self._output, []
        if self._transport is not None:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))

    async def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            self._connection = None

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if type(reply) is hiredis.ReplyError and AWAY.match(str(reply)):
                reply = NotSent(str(reply))
            self._waiting.popleft()(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.up = None, False
        self._output.clear()
        waiting, self._waiting = self._waiting, deque()
        for answered in waiting:
            answered(ConnectionError("the connection to Redis was lost"))
        self._lost.set()
