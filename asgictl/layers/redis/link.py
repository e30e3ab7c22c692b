"""One asyncio connection to Redis that batches, notices silence, and sends again what was not answered.

What a turn of the event loop sends goes out in one write. redis-py connects: it parses the URL, authenticates and does
TLS. Then this link takes its transport over and talks through hiredis alone, which measured two to three times the
commands a second of redis-py's own asyncio client.

A call says when it may be sent again. Such a call is kept until it is answered and, after a cut, sent again behind
those that were sent before it; so what must not happen twice has a number that its receiver or script knows.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError as ClientError

from asgictl.layers.base import NotSent, ignored
from asgictl.layers.redis.endpoint import CONNECT_SECONDS, endpoint
from asgictl.machine import forks
from asgictl.machine.ticks import until_tick

logger = logging.getLogger("asgictl.layers")
# So says a Redis that is not itself, or may not write now, and has done nothing; 6.2 of the first write of a script in
# words of its own.
AWAY = re.compile(
    "((ERR )?Error running script .* -)?"
    "(LOADING|MASTERDOWN|READONLY|BUSY|TRYAGAIN|CLUSTERDOWN|NOREPLICAS|MISCONF|MOVED|ASK) "
)
REPLICA = re.compile("((ERR )?Error running script .* -)?READONLY ")
FULL = re.compile("((ERR )?Error running script .* -)?OOM ")
# When a call may be sent again:
UNSENT = 1  # Redis is away, or says that it has done nothing
CUT = 2  # the connection was lost, and nobody knows
WHEN_FULL = 4  # Redis has no room now
ALWAYS = UNSENT | CUT | WHEN_FULL
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # Redis restarts in a few tenths of a second; then once a second
AGAIN_SECONDS = 0.2  # after which a Redis that said "not now" is asked again
SILENT_SECONDS = 4.0  # without a byte while an answer is due; a blocked read is answered each second
LOOK_SECONDS = 0.5  # between two looks at whether it is silent
PROBE_SECONDS = 1.0  # that a second connection has to be answered
QUEUE_BYTES = 64 << 20  # of calls that are not answered


def pack(command: tuple[str | bytes | int, ...]) -> bytes:
    """Return a command in Redis's protocol."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows one-tuples alone
    return packed


class Call:
    """A command on its way. answered: None once nobody waits for the answer. is_sent: it may have reached Redis."""

    __slots__ = ("again", "answered", "is_sent", "packed")

    def __init__(self, packed: bytes, answered: Callable[[Any], None] | None, again: int) -> None:
        self.packed: bytes = packed
        self.answered = answered
        self.again: int = again
        self.is_sent: bool = False

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.packed)

    def cancel(self) -> None:
        """Send it no more, and forget its answer; what was sent stays sent."""
        self.answered = None

    def withdraw(self) -> None:
        """Send it no more, unless it is on its way: that answer is heard."""
        if not self.is_sent:
            self.answered = None


class Link:
    """A connection that comes back by itself.

    restored: awaited after each connect, before `up` is set and what was kept is sent again, with the link ready.
    """

    def __init__(self, url: str, restored: Callable[[], Any] | None = None) -> None:
        self._url = url
        self._restored = restored
        self._stream: _Stream | None = None
        self._ended: _Stream | None = None  # is to be closed yet
        self._waiting: deque[Call] = deque()  # sent, in the order of their answers
        self._refused: deque[Call] = deque()  # with "not now", to be sent again in a moment
        self._kept: deque[Call] = deque()  # to be sent behind these, once Redis is there
        self._queue_bytes = 0
        self._output: list[bytes] = []
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop  # asking for it is a system call before Python 3.12
        self._replica: _Stream | None = None  # the last connection whose Redis said that it is one
        self._due_since = 0.0  # an answer, or when the last connection was last heard; by time.monotonic()
        self.up: bool = False

    @property
    def heard(self) -> float:
        """When Redis last said anything, or an answer began to be due; by time.monotonic()."""
        return max(self._due_since, self._stream.heard if self._stream else 0.0)

    async def start(self) -> None:
        """Connect; raises redis-py's errors when the first attempt fails. From then on, reconnect for ever."""
        try:
            await self._connect()
        except BaseException:
            await self._end_stream()
            raise
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Close for good; what was not answered gets a ConnectionError."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._end_stream()
        kept, self._kept = self._kept, deque()
        for call in kept:
            self._answer(call, ConnectionError("the link to Redis was closed"))

    def call(self, *command: str | bytes | int, answered: Callable[[Any], None], again: int = 0) -> Call:
        """Send a command. `answered` gets the reply, or an exception, never before this returns.

        Exceptions: hiredis's ReplyError; NotSent when nothing was sent or done; ConnectionError when nobody knows. What
        `again` names is no answer: the call is kept, and sent again.
        """
        call = Call(pack(command), answered, again)
        size = self._queue_bytes + len(call.packed)
        if size > QUEUE_BYTES or (self._stream is None and not again):
            words = (
                "Redis is unavailable" if size <= QUEUE_BYTES else f"{QUEUE_BYTES} bytes are already waiting for Redis"
            )
            asyncio.get_running_loop().call_soon(answered, NotSent(words))
            call.cancel()
            return call
        self._queue_bytes = size
        if again and (not self.up or self._refused):
            self._kept.append(call)
        else:
            self._send(call)
        return call

    async def ask(self, *command: str | bytes | int, again: int = 0) -> Any:
        """Send a command and wait for its reply; raises what call() would give to its callback."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(reply: Any) -> None:
            if not future.done():
                future.set_result(reply)

        call = self.call(*command, answered=answered, again=again)
        try:
            reply = await future
        finally:
            call.cancel()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def drop(self) -> None:
        """Let go of this connection, and connect anew."""
        if self._stream is not None:
            self._stream.transport.abort()

    def _send(self, call: Call) -> None:
        if not self._output:
            self._loop.call_soon(self._flush)
            if not self._waiting:
                self._due_since = monotonic()
        call.is_sent = True
        self._output.append(call.packed)
        self._waiting.append(call)

    def _flush(self) -> None:
        output, self._output = self._output, []
        if self._stream is not None:
            self._stream.transport.write(output[0] if len(output) == 1 else b"".join(output))

    def _answer(self, call: Call, reply: Any) -> None:
        self._queue_bytes -= len(call.packed)
        answered, call.answered = call.answered, None  # a caller that keeps its call would be a cycle for the collector
        if answered is not None:
            try:
                answered(reply)
            except Exception:  # what one caller does wrong must not cost the others their answers
                logger.exception("could not handle an answer of Redis")

    def _take(self, reply: Any) -> None:
        call = self._waiting.popleft()
        if type(reply) is hiredis.ReplyError:
            reply = self._judge(call, reply)
            if reply is None:
                return
        self._answer(call, reply)

    def _judge(self, call: Call, error: hiredis.ReplyError) -> Exception | None:
        """Return what the caller is to hear of a refusal; None when the call is sent again in a moment."""
        words = str(error)
        is_away = AWAY.match(words)
        if REPLICA.match(words) and self._replica is not self._stream:
            self._replica = self._stream
            self._loop.call_later(AGAIN_SECONDS, self._leave_replica)
        if call.answered and call.again & (UNSENT if is_away else WHEN_FULL if FULL.match(words) else 0):
            if not self._refused:
                logger.warning("Redis cannot run commands now: %s", words)
                self._loop.call_later(AGAIN_SECONDS, self._resend)
            call.is_sent = False
            self._refused.append(call)
            return None
        return NotSent(words) if is_away else error

    def _leave_replica(self) -> None:
        """Connect anew: the name of a master that is one no more may mean another now."""
        if self._stream is None or self._stream is not self._replica:
            return
        self.up = False  # what may be sent again is kept from now on
        if any(call.answered and call.again == UNSENT for call in self._waiting):  # a cut would lose it
            self._loop.call_later(AGAIN_SECONDS, self._leave_replica)
        else:
            self.drop()

    def _resend(self) -> None:
        """Send what Redis has refused for now and then what is kept."""
        if self.up:
            calls, self._refused, self._kept = (*self._refused, *self._kept), deque(), deque()
            for call in calls:
                if call.answered is None:
                    self._answer(call, None)
                else:
                    self._send(call)

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(until_tick(LOOK_SECONDS)):
                    await self._lost.wait()
            if self._lost.is_set():
                await self._reconnect()
            elif self._is_silent():
                await asyncio.sleep(LOOK_SECONDS)  # it may be we who stood still: what has come is read first
                if self._is_silent():
                    await self._probe()
            elif self.up and not self._waiting and monotonic() - self.heard > LOOK_SECONDS:
                # What comes next would wait for as long again to notice that this connection is silent.
                self.call("PING", answered=ignored)

    def _is_silent(self) -> bool:
        return bool(self._waiting) and monotonic() - self.heard > SILENT_SECONDS

    async def _probe(self) -> None:
        """Ask by a second connection whether this one is silent or Redis, whom nothing more is to be sent then."""
        stream = None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                stream = await open_stream(self._url)
                await stream.ping()
        except (OSError, ClientError, hiredis.ReplyError):
            if stream is not None:
                await stream.close()
            return
        logger.warning("a connection to Redis was silent for %.0f s and is replaced", SILENT_SECONDS)
        await self._end_stream()
        try:
            await self._connect(stream)
        except Exception:  # noqa: BLE001 - from here on as after any cut, whatever it is
            await self._end_stream()

    async def _reconnect(self) -> None:
        await self._end_stream()
        attempt = 0
        while not self.up:
            await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            attempt += 1
            try:
                await self._connect()
            except Exception as error:  # away, not yet itself, or what it holds has no sense: go on
                await self._end_stream()
                if attempt in {1, 10} or attempt % 60 == 0:
                    known = isinstance(error, (OSError, ClientError, hiredis.ReplyError))
                    text, trace = str(error) or "it does not answer", None if known else error
                    logger.warning("Redis is unavailable (attempt %d): %s", attempt, text, exc_info=trace)
        if attempt > 1:
            logger.warning("Redis is available again")

    async def _connect(self, stream: "_Stream | None" = None) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            self._stream = stream = stream or await open_stream(self._url)
            self._lost.clear()
            stream.attach(self._take, self._lose)
            if self._restored:
                await self._restored()
        if self._stream is not stream:
            raise ConnectionError("the connection to Redis was lost")
        self.up = True
        self._resend()

    def _lose(self) -> None:
        """The connection is no more: keep what may be sent again, in its order, before what is kept already."""
        self._due_since = self.heard
        self._stream, self._ended, self.up = None, self._stream, False
        self._output.clear()
        waiting, self._waiting = self._waiting, deque()
        kept, self._kept = self._kept, deque(self._refused)
        self._refused.clear()
        lost: list[Call] = []
        for call in waiting:
            call.is_sent = False
            (self._kept if call.again & CUT else lost).append(call)
        self._kept += kept
        self._lost.set()
        for call in lost:
            self._answer(call, ConnectionError("the connection to Redis was lost"))

    async def _end_stream(self) -> None:
        if self._stream is not None:
            self._lose()
        if self._ended is not None:
            await self._ended.close()
        self._ended = None
        self._lost.set()


class _Stream(asyncio.Protocol):
    """A connection that redis-py has made, and whose transport is ours."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection  # owns the stream objects behind the transport
        # The one private name that we lean on: redis-py has no public way to hand over what it has connected.
        self.transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        self._reader = hiredis.Reader()
        self.heard = 0.0
        self._take: Callable[[Any], None] = ignored
        self._lose: Callable[[], None] = ignored
        self.transport.set_protocol(self)
        forks.hold(self)

    def fileno(self) -> int:
        """Return the open file of the connection, -1 once there is none."""
        held = self.transport.get_extra_info("socket")
        return held.fileno() if held else -1

    def attach(self, take: Callable[[Any], None], lose: Callable[[], None]) -> None:
        """Have each reply heard, and the loss; also one that came before."""
        self._take, self._lose = take, lose
        if self.transport.is_closing():
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    async def ping(self) -> None:
        """Raise ConnectionError unless Redis answers."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.attach(answered.set_result, lambda: answered.set_exception(ConnectionError("lost")))
        self.transport.write(pack(("PING",)))
        if isinstance(reply := await answered, Exception):
            raise reply

    async def close(self) -> None:
        self._take = self._lose = ignored
        self.transport.abort()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        self.heard = monotonic()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._take(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        lose, self._lose = self._lose, ignored
        lose()


async def open_stream(url: str) -> _Stream:
    """Connect; raises redis-py's errors."""
    return _Stream(await endpoint(url).connect_async())
