"""How a Channels channel layer sends to Redis from one event loop.

Nothing is lost with a cut connection: what was not answered is sent again, and Redis knows its number.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import redis

from asgictl.errors import RedisError
from asgictl.layers.base import ignored
from asgictl.layers.redis.link import BACKOFF_SECONDS, CUT, UNSENT, Link
from asgictl.layers.redis.send_commands import Command

logger = logging.getLogger("asgictl.layers")
SCRIPT = Path(__file__).with_name("channel_layer.lua").read_text()
NO_REDIS = (
    "Redis cannot be used: {}; is it running? Its URL is that of hosts in CHANNEL_LAYERS, else ASGICTL_REDIS:"
    " set one of them"
)
ANSWER_SECONDS = 5  # less than what channel_layer.lua remembers a sender for


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

    def command(self, last: str, number: int) -> Command:
        """Return it as the sender's order of this number; last: the key of the sender."""
        arguments = self.expiry_milliseconds, self.capacity, self.field, self.payload
        keys = (last, self.stream, *((self.beside,) if self.beside else ()), *self.more)
        return ("EVAL", SCRIPT, len(keys), *keys, self.what, number, *arguments)


class SharedLink(Link):
    """A link that is started by whoever first needs it."""

    has_started: bool = False
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
                    raise RedisError(NO_REDIS.format(error)) from error
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
        self.link: SharedLink = SharedLink(url, self._restored)
        self.links: set[Link] = {self.link}
        self._last = last + secrets.token_hex(8)
        self._on_restored = restored
        self._on_ended = ended
        self._numbers = count(1)
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

    async def send(self, order: Order) -> Any:
        """Return what Redis says. Raises RedisError when it does not, and then nobody knows whether it was done."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self.link.ask(*self._command(order), again=UNSENT | CUT)
        except TimeoutError:
            raise RedisError(f"Redis has not answered for {ANSWER_SECONDS} s; check that it is running") from None
        except (OSError, hiredis.ReplyError) as error:
            raise RedisError(f"Redis rejected a message: {error}") from error

    def post(self, order: Order, answered: Callable[[Any], None] = ignored) -> None:
        """Send it; `answered` gets what Redis says, or an exception."""
        self.link.call(*self._command(order), answered=answered, again=UNSENT | CUT)

    def _command(self, order: Order) -> Command:
        return order.command(self._last, next(self._numbers))
