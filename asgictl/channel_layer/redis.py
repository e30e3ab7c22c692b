"""The channel layer for Channels 3 and 4 on Redis.

A group message stands in one stream that every process reads, and each gives it to those of its own channels that are
members: so it costs for each process, not for each member, and who joins or leaves writes nothing. What goes to one
process's channels stands in a stream of that process. A channel that many processes receive from has a stream of its
own, from which a process moves to its own stream as many messages as somebody waits for there.
"""

import asyncio
import os
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from asgiref.sync import AsyncToSync
from channels.exceptions import ChannelFull, InvalidChannelLayerError

from asgictl.channel_layer.base import ChannelLayer, decode, encode
from asgictl.channel_layer.links import Order, OrderSender, SharedLink
from asgictl.channel_layer.mailboxes import BEGINNING
from asgictl.errors import NotRunning, RedisError
from asgictl.layers.base import ignored
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.link import Link
from asgictl.layers.redis.reader import Followed, Reader, position_of
from asgictl.layers.redis.sync_client import ask
from asgictl.layers.redis.url import parse_url
from asgictl.machine.run_dir import redis_url_of, the_instance
from asgictl.wire.messages import plain

DEFAULT_HOST = "redis://localhost:6379"
SHARED_MEMBERS = 1_000  # whose names are kept; past it they are learned anew
LOOK_SECONDS = 1  # after which it is looked again for messages of whose coming Redis has forgotten to tell
LOOKS = 2  # after so many, what was on its way is taken for lost; the first may follow a loop that stood still


def url_of(hosts: Sequence[Any] | None) -> str:
    """Return what channels_redis's hosts say: a URL, (host, port) or {"address": URL}; by default the instance's.

    That is ASGICTL_REDIS, else the Redis of ASGICTL_NAME's instance, or of the only one, as for Channel.send in a
    script. DEFAULT_HOST where none runs, or it has no Redis of its own. Raises RedisError when ASGICTL_NAME's does not
    run, and RunDirectoryError.
    """
    if not hosts:
        return os.environ.get("ASGICTL_REDIS") or _instances_redis(os.environ.get("ASGICTL_NAME"))
    if isinstance(hosts, str) or len(hosts) > 1:
        raise InvalidChannelLayerError(
            "hosts must name exactly one Redis: this layer does not spread its channels over several"
        )
    match hosts[0]:
        case str(url) | {"address": str(url)}:
            return url
        case (str(host), int(port)):
            return f"redis://{host}:{port}"
    raise InvalidChannelLayerError(
        "a host must be a URL such as redis://:password@host:6379/0 or redis+sentinel://host1,host2/SERVICE,"
        ' (host, port) or {"address": URL}'
    )


def _instances_redis(name: str | None) -> str:
    try:
        return redis_url_of(name or the_instance())
    except NotRunning as error:
        if name and "ASGICTL_RUN_DIR" not in os.environ:  # else a start is under way, and asks what TARGET has
            hint = "or set ASGICTL_REDIS, or hosts in CHANNEL_LAYERS, to the URL of Redis"
            raise RedisError(f"{error}, {hint}") from None
    except RedisError:  # it was given one, or needs none
        pass
    return DEFAULT_HOST


class RedisChannelLayer(ChannelLayer):
    """Works on any number of event loops, and through a Redis that restarts; Redis 6.2 or Valkey 8.

    hosts: of one Redis. prefix: of its keys, so that several may share it. The others are ChannelLayer's. Calls raise
    RedisError when Redis cannot be reached at first, or does not answer for 5 s; then nobody knows whether it did.
    """

    def __init__(self, hosts: Sequence[Any] | None = None, prefix: str = "asgi", **options: Any) -> None:
        super().__init__(**options)
        self._url = url_of(hosts)
        parse_url(self._url)
        self._keys = Keys(prefix).layer
        self._groups = self._keys + "groups"
        self._inbox = self._inbox_of(self._client)
        self._senders: dict[asyncio.AbstractEventLoop, OrderSender] = {}
        self._followed = [
            Followed(self._inbox, partial(self._arrived, self._inbox), trim_bytes=0),
            Followed(self._groups, partial(self._arrived, self._groups), b""),
        ]
        self._sent = BEGINNING  # where the newest group message of this process stands
        self._reader: Reader[SharedLink] | None = None
        self._reading: asyncio.AbstractEventLoop | None = None  # the reader's, whichever first needed it
        self._waiting: Counter[str] = Counter()  # receivers of channels that other processes receive from too
        self._taking: defaultdict[str, deque[int]] = defaultdict(
            deque
        )  # those on their way here: asked for at which look
        self._told: set[str] = set()  # of these, where there is more since one was asked for
        self._looks = 0
        self._next_look = self._next_count = 0.0
        self._shared_members: dict[str, tuple[str | bytes, ...]] = {}  # of groups, as far as sending to them has told

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a channel that only this process receives from."""
        await self._listen()
        return await super().new_channel(prefix)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the next message of a channel; if it has a "!", of this process. A cancelled call takes none."""
        channel = plain(channel)
        is_ours = channel in self._mailboxes and "!" in channel
        if not is_ours:
            self.require_valid_channel_name(channel)
            is_ours = self._is_ours(channel)
        if not (self._reader and self._reader.link.up and asyncio.get_running_loop() in self._senders):
            await self._listen()
        if is_ours:
            received = await self._mailboxes.receive(channel)
            if received.is_counted:
                self._tell_left(channel, (await self._sender()).link)
        elif "!" in channel:
            raise ValueError(
                f"{channel} belongs to another process: receive from a name that new_channel() returned here"
            )
        else:
            sender = await self._sender()
            self._waiting[channel] += 1
            try:
                self._take(channel, sender)
                received = await self._mailboxes.receive(channel)
            finally:
                self._waiting[channel] -= 1
                self._give_back(channel, sender)
        message: dict[str, Any] = decode(received.data)
        return message

    async def flush(self) -> None:
        """Forget every message and every membership, in every process as it hears of it."""
        stored = await asyncio.to_thread(ask, self._url, lambda client: client.keys(self._keys + "*"))
        order = self._order("flush", self._groups, field=self._keys, payload=self._client.encode())
        await self._ask(order._replace(more=tuple(stored)))
        self._mailboxes.clear()

    def _send(self, channel: str, message: dict[str, Any]) -> Order:
        self.require_valid_channel_name(channel)
        data, capacity = encode(message), self.get_capacity(channel)
        if "!" not in channel:
            return self._order("shared", self._shared(channel), self._groups, capacity, channel, data)
        client = client_of(channel)
        return self._order("local", self._inbox_of(client), self._held(client), capacity, channel, data)

    def _group_send(self, group: str, message: dict[str, Any]) -> Order:
        self.require_valid_group_name(group)
        order = self._order("group", self._groups, self._members(group), 0, group, encode(message))
        return order._replace(more=more) if (more := self._shared_members.get(group)) else order

    def _group_add(self, group: str, channel: str) -> Order | None:
        self._check(group, channel)
        if self._is_ours(channel):
            self._mailboxes.join(group, channel, max(self._sent, position_of(self._followed[1].position or b"0")))
            return None
        if "!" in channel:
            return self._letter("+" + group, channel)
        capacity, expiry = self.get_capacity(channel), int(self.group_expiry * 1000)
        return self._order("join", self._shared(channel), self._members(group), capacity, channel)._replace(
            expiry_milliseconds=expiry
        )

    def _group_discard(self, group: str, channel: str) -> Order | None:
        self._check(group, channel)
        if self._is_ours(channel):
            self._mailboxes.leave(group, channel)
            return None
        if "!" in channel:
            return self._letter("!" + group, channel)
        return self._order("leave", self._shared(channel), self._members(group))

    def _letter(self, what: str, channel: str) -> Order:
        """Tell the process that a channel belongs to; no channel's name begins as `what` does."""
        return self._order("direct", self._inbox_of(client_of(channel)), field=what, payload=channel.encode())

    def _order(
        self, what: str, stream: str, beside: str = "", capacity: int = 0, field: str = "", payload: bytes = b""
    ) -> Order:
        return Order(what, stream, beside, int(self.expiry * 1000), capacity, field, payload)

    def _is_ours(self, channel: str) -> bool:
        return channel.partition("!")[0].endswith("." + self._client)

    def _shared(self, channel: str) -> str:
        return f"{self._keys}ch:{channel}"

    def _inbox_of(self, client: str) -> str:
        return f"{self._keys}in:{client}"

    def _held(self, client: str) -> str:
        return f"{self._keys}held:{client}"

    def _members(self, group: str) -> str:
        return f"{self._keys}group:{group}"

    def _arrived(self, stream: str, entry: bytes, fields: list[bytes]) -> None:
        """Hear what the reader has read, on its loop."""
        value, name, position = fields[1], fields[0].decode(), position_of(entry)
        sender = self._senders[asyncio.get_running_loop()]
        if stream == self._groups:
            if name == self._keys and value.decode() != self._client:
                self._mailboxes.clear()
            elif name[0] == "!":  # there is more in a channel that processes share
                self._told.add(name[1:])
                self._take(name[1:], sender)
            else:
                self._mailboxes.deliver(name, value, position)
        elif name[0] == "+":
            self._mailboxes.join(name[1:], value.decode(), (position[0], -1))  # the same clock, another sequence
        elif name[0] == "!":
            self._mailboxes.leave(name[1:], value.decode())
        else:
            self._mailboxes.put(name, value, is_counted="!" in name)
            if "!" not in name:
                self._has_come(name)
                self._give_back(name, sender)

    def _has_read(self, _is_empty: bool) -> None:
        """Look again, now and then: what was on its way may be lost with what Redis has lost."""
        if monotonic() >= self._next_look:
            self._next_look, self._looks = monotonic() + LOOK_SECONDS, self._looks + 1
            sender = self._senders[asyncio.get_running_loop()]
            for channel, asked in list(self._taking.items()):
                while asked and asked[0] <= self._looks - LOOKS:
                    self._has_come(channel)
            self._waiting = +self._waiting
            for channel in self._waiting:
                self._take(channel, sender)
            if monotonic() >= self._next_count:
                self._restored(sender.link)
            for channel in self._mailboxes.freed():
                self._tell_left(channel, sender.link)

    def _take(self, channel: str, sender: OrderSender) -> None:
        """Have as many messages moved here as are waited for."""
        here = len(self._taking[channel]) + len(self._mailboxes[channel].messages)
        for _ in range(self._waiting[channel] - here):
            self._taking[channel].append(self._looks)
            self._told.discard(channel)
            take = self._order("take", self._shared(channel), self._inbox, field=channel)
            sender.post(take, partial(self._has_taken, channel, sender))

    def _has_taken(self, channel: str, sender: OrderSender, answer: object) -> None:
        if answer == 0:
            self._has_come(channel)
            if channel in self._told:
                self._take(channel, sender)

    def _has_come(self, channel: str) -> None:
        """Count a message that was on its way no more: it is here, or there was none, or it is lost."""
        if asked := self._taking.get(channel):
            with suppress(IndexError):  # another thread was quicker
                asked.popleft()
            if not asked:
                self._taking.pop(channel, None)

    def _give_back(self, channel: str, sender: OrderSender) -> None:
        """Let others have what nobody waits for here any more."""
        while not self._waiting[channel] and (message := self._mailboxes[channel].take(monotonic())):
            sender.post(self._order("shared", self._shared(channel), self._groups, 0, channel, message.data))

    def _tell_left(self, channel: str, link: Link) -> None:
        """Let senders know how much room there is in a channel of ours."""
        held, counted = self._held(self._client), self._mailboxes.counted_in(channel)
        if counted:
            link.call("HSET", held, channel, counted, answered=ignored)
            link.call("PEXPIRE", held, int(self.expiry * 1000), answered=ignored)
        else:
            link.call("HDEL", held, channel, answered=ignored)

    def _restored(self, link: Link) -> None:
        """Tell senders all of it: a cut may have swallowed what they were told, and what expired unread is counted."""
        self._next_count = monotonic() + self.expiry
        link.call("DEL", self._held(self._client), answered=ignored)
        for channel in self._mailboxes.counted():
            self._tell_left(channel, link)

    async def _carry_out(self, name: str, order: Order | None) -> None:
        if order:
            answer = await self._ask(order)
            for other in self._others(order, answer):
                await self._ask(other)
            self._heard(name, answer)

    def _carry_out_sync(self, name: str, order: Order | None) -> None:
        if order:
            answer = self._ask_sync(order)
            for other in self._others(order, answer):
                self._ask_sync(other)
            self._heard(name, answer)

    def _others(self, order: Order, answer: Any) -> list[Order]:
        """Return what is left to be sent: to members that the order had not declared; those behind it will."""
        if not isinstance(answer, list):
            return []
        if sum(map(len, self._shared_members.values())) + len(answer[1]) > SHARED_MEMBERS:
            self._shared_members.clear()
        known = (*order.more, *(stream for stream, _, _ in answer[1]))
        self._shared_members[order.field] = known[:SHARED_MEMBERS]
        return [
            self._order("shared", stream.decode(), self._groups, capacity, channel.decode(), order.payload)
            for stream, capacity, channel in answer[1]
        ]

    def _heard(self, name: str, answer: Any) -> None:
        if isinstance(answer, list):
            answer = answer[0]
        if answer == 0:
            raise ChannelFull(name)
        if isinstance(answer, bytes):  # where a group message stands
            self._sent = max(self._sent, position_of(answer))

    async def _ask(self, order: Order) -> Any:
        if asyncio.get_running_loop() in AsyncToSync.loop_thread_executors:  # made for this call: nobody else waits
            return self._ask_sync(order)
        return await (await self._sender()).send(order)

    def _ask_sync(self, order: Order) -> Any:
        """Ask from a thread of its own; once more after a cut, which Redis recognises."""
        command = order.command(f"{self._keys}last:{secrets.token_hex(8)}", 1)
        with suppress(RedisError):
            return ask(self._url, lambda client: client.execute_command(*command))
        return ask(self._url, lambda client: client.execute_command(*command))

    async def _sender(self) -> OrderSender:
        """Return the running loop's."""
        loop = asyncio.get_running_loop()
        sender = self._senders.get(loop)
        if sender is None:
            self._senders = {loop: each for loop, each in self._senders.items() if not loop.is_closed()}
            sender = OrderSender(self._url, self._keys + "last:", self._restored, partial(self._left, loop))
            self._senders[loop] = sender
            await sender.start()
        if not sender.link.has_started:
            await sender.link.be_started()
        return sender

    async def _listen(self) -> None:
        """See to it that somebody reads what comes for this process."""
        loop = asyncio.get_running_loop()
        if loop not in self._senders:  # should the reader's loop end, this one goes on
            await self._sender()
        reader = self._reader
        if reader is None or self._reading is None or self._reading.is_closed():
            reader = self._reader = Reader(partial(SharedLink, self._url), self._followed, on_read=self._has_read)
            self._reading = loop
        elif reader.link.has_started:
            return
        if self._reading is loop:
            self._senders[loop].links.add(reader.link)
            await reader.link.be_started()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._listen(), self._reading))

    def _left(self, loop: asyncio.AbstractEventLoop) -> None:
        """A loop has ended: if it was the one that reads, another that runs goes on."""
        self._senders.pop(loop, None)
        if self._reading is loop:
            self._reader = self._reading = None
            if running := [each for each in self._senders if each.is_running()]:
                asyncio.run_coroutine_threadsafe(self._listen(), running[0])


def client_of(channel: str) -> str:
    """Return which process receives from a process-local channel."""
    return channel.partition("!")[0].rpartition(".")[2]
