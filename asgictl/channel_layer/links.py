"""How a Channels channel layer speaks to Redis from one event loop: what it sends, and two ways to read.

Nothing is lost with a cut connection: what was not answered is sent again, and Redis knows its number; what is read by
position is read again; what is taken from others stands in Redis as taken until it is acknowledged.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import redis

from asgictl.errors import RedisError
from asgictl.layers.redis.interface_side import BLOCK_MILLISECONDS, READ_COUNT, position_of
from asgictl.layers.redis.link import BACKOFF_SECONDS, Link

logger = logging.getLogger("asgictl.layers")
SCRIPT = Path(__file__).with_name("channel_layer.lua").read_text()
ANSWER_SECONDS = 5  # less than what channel_layer.lua remembers a sender for
RETRY_SECONDS = 1


class Order(NamedTuple):
    """What channel_layer.lua is to do; its words. beside: "" where there is nothing. more: what else it touches."""

    what: str
    stream: str
    beside: str
    expiry_milliseconds: int
    capacity: int
    field: str
    payload: bytes
    more: tuple[str | bytes, ...] = ()

    def command(self, last: str, number: int) -> tuple[str | bytes | int, ...]:
        """Return it as the sender's order of this number; last: the key of the sender."""
        arguments = self.expiry_milliseconds, self.capacity, self.field, self.payload
        keys = (last, self.stream, *((self.beside,) if self.beside else ()), *self.more)
        return ("EVAL", SCRIPT, len(keys), *keys, self.what, number, *arguments)


class SharedLink(Link):
    """A link that is started by whoever first needs it."""

    has_started = False
    _starting: asyncio.Task[None] | None = None

    async def be_started(self) -> None:
        """Connect; from then on it comes back by itself. Raises RedisError, and the next call tries again."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        for pause_seconds in (*BACKOFF_SECONDS, None):  # a cut may come at any time
            try:
                await self.start()
            except (OSError, redis.RedisError, hiredis.ReplyError) as error:
                await self.stop()
                if pause_seconds is None:
                    self._starting = None
                    raise RedisError(f"Redis cannot be used: {error}; is it running, are hosts right?") from error
                await asyncio.sleep(pause_seconds)
            else:
                self.has_started = True
                return


class OrderSender:
    """Sends each order once and in turn, whatever becomes of the connection.

    last: what the key of its last number begins with. restored: called when the link is there, before anything else.
    ended: called when the event loop ends, which asyncio tells its generators; `links` are closed before.
    """

    def __init__(self, url: str, last: str, restored: Callable[[Link], None], ended: Callable[[], None]) -> None:
        self.link = SharedLink(url, self._restored)
        self.links: set[Link] = {self.link}
        self.loop = asyncio.get_running_loop()
        self._last = last + secrets.token_hex(8)
        self._on_restored = restored
        self._on_ended = ended
        self._numbers = count(1)
        self._unanswered: dict[int, tuple[Order, asyncio.Future[Any]]] = {}
        self._is_open = False
        self._lifetime = self._live()

    async def start(self) -> None:
        await anext(self._lifetime)

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for link in self.links:
                await link.stop()
            self._on_ended()

    async def _restored(self) -> None:
        await self.link.ask("PING")  # a Redis that is loading refuses it
        self._on_restored(self.link)
        self._is_open = True
        for number in self._unanswered:
            self._call(number)

    async def send(self, order: Order) -> Any:
        """Return what Redis says. Raises RedisError when it does not, and then nobody knows whether it was done."""
        number, future = self.post(order)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reply = await future
        except TimeoutError:
            raise RedisError(f"Redis has not answered for {ANSWER_SECONDS} s: is it running?") from None
        finally:
            self._unanswered.pop(number, None)
        if isinstance(reply, Exception):
            raise RedisError(f"Redis refused a message: {reply}") from reply
        return reply

    def post(self, order: Order) -> tuple[int, asyncio.Future[Any]]:
        """Send it, and return its number and what will hold the answer, were it an error."""
        number, future = next(self._numbers), self.loop.create_future()
        self._unanswered[number] = order, future
        if self._is_open:  # else it leaves once the link is there, behind those before it
            self._call(number)
        return number, future

    def _call(self, number: int) -> None:
        order, _future = self._unanswered[number]
        self.link.call(*order.command(self._last, number), answered=partial(self._answered, number))

    def _answered(self, number: int, reply: object) -> None:
        if isinstance(reply, ConnectionError):
            self._is_open = False
            self.link.drop()  # a Redis that is not itself keeps its connections
        elif (sent := self._unanswered.pop(number, None)) and not sent[1].done():
            sent[1].set_result(reply)


class PositionReader:
    """Reads streams to their ends, and on: the first one, which is ours alone, before the second, which all read.

    positions: of both, which outlive this reader; b"" where reading begins with what comes next. on_entry: hears
    stream, position, field and value. on_read: called after each read, at least once a second.
    """

    def __init__(
        self,
        url: str,
        positions: dict[str, bytes],
        on_entry: Callable[[str, bytes, bytes, bytes], None],
        on_read: Callable[[], None],
    ) -> None:
        self.link = SharedLink(url, self._begin)
        self.loop = asyncio.get_running_loop()
        self._positions = positions
        self._on_entry = on_entry
        self._on_read = on_read

    async def _begin(self) -> None:
        for stream, position in self._positions.items():
            last = await self.link.ask("XREVRANGE", stream, "+", "-", "COUNT", 1)
            end = last[0][0] if last else b"0-0"
            # A Redis that has lost its newest entries has only such as were read; and its ids go on from there.
            if not position or position_of(end) < position_of(position):
                self._positions[stream] = end
        self._read()

    def _read(self) -> None:
        self.link.call(
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MILLISECONDS, "STREAMS"),
            *self._positions,
            *self._positions.values(),
            answered=self._take,
        )

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            if self.link.up:
                logger.error("Redis refused a read: %s", reply)
                self.loop.call_later(RETRY_SECONDS, self.link.drop)
            return  # a lost connection comes back through _begin
        found = {stream.decode(): entries for stream, entries in reply or ()}
        ours, of_all = self._positions
        for stream in (ours, of_all) if len(found.get(ours, ())) < READ_COUNT else (ours,):
            for entry, (field, value) in found.get(stream, ()):
                self._positions[stream] = entry
                try:
                    self._on_entry(stream, entry, field, value)
                except Exception:
                    logger.exception("a message of a channel layer was passed over")
        if ours in found:
            milliseconds, sequence = position_of(self._positions[ours])
            self.link.call("XTRIM", ours, "MINID", f"{milliseconds}-{sequence + 1}", answered=ignored)
        self._on_read()
        self._read()


def ignored(_reply: object) -> None:
    """For what is made up for by the next of its kind."""
