"""What Channels 3 and 4 ask of a channel layer (django/channels, docs/channel_layer_spec), and one in memory.

What differs from channels_redis: the capacity of a process-local channel is its own, not shared by all that one process
receives from, so a consumer that reads slowly costs its neighbours nothing. Every call that sends has a sync twin.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from asgictl.channel_layer.mailboxes import Mailboxes
from asgictl.wire.messages import plain, plain_value

MESSAGE_BYTES = 4 << 20  # what 1 MB of JSON can become: [1.0,1.0,...] grows by 9/4
_encode = msgspec.msgpack.Encoder(enc_hook=plain_value).encode
decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


class ChannelLayer(BaseChannelLayer):  # type: ignore[misc]  # Channels has no types
    """What both share: names, capacities and messages are checked by Channels' own rules.

    expiry, group_expiry: seconds. channel_capacity: by glob or compiled pattern of channel names; the first counts.
    """

    extensions: tuple[str, ...] = ("groups", "flush")
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
    ) -> None:
        super().__init__(expiry, capacity)
        self.channel_capacity: Any = self.compile_capacities(channel_capacity or {})
        self.group_expiry = group_expiry
        self._client = secrets.token_hex(16)  # in the names of this process's channels
        self._mailboxes = Mailboxes(expiry, group_expiry, self.get_capacity)

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a channel that only this process receives from."""
        return f"{prefix}.{self._client}!{secrets.token_hex(8)}"

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Raises ChannelFull, MessageTooLarge, and TypeError for what is no name or no message."""
        await self._carry_out(channel, self._send(plain(channel), message))

    def send_sync(self, channel: str, message: dict[str, Any]) -> None:
        self._carry_out_sync(channel, self._send(plain(channel), message))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Raises MessageTooLarge and TypeError. Members whose channels are full go without."""
        await self._carry_out(group, self._group_send(plain(group), message))

    def group_send_sync(self, group: str, message: dict[str, Any]) -> None:
        self._carry_out_sync(group, self._group_send(plain(group), message))

    async def group_add(self, group: str, channel: str) -> None:
        """Whoever joins receives what is sent from now on, until group_expiry seconds after the last call."""
        await self._carry_out(group, self._group_add(plain(group), plain(channel)))

    def group_add_sync(self, group: str, channel: str) -> None:
        self._carry_out_sync(group, self._group_add(plain(group), plain(channel)))

    async def group_discard(self, group: str, channel: str) -> None:
        """Discarding a stranger does nothing."""
        await self._carry_out(group, self._group_discard(plain(group), plain(channel)))

    def group_discard_sync(self, group: str, channel: str) -> None:
        self._carry_out_sync(group, self._group_discard(plain(group), plain(channel)))

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the next message of a channel. A cancelled call takes none."""
        channel = plain(channel)
        if channel not in self._mailboxes:
            self.require_valid_channel_name(channel)
        message: dict[str, Any] = decode((await self._mailboxes.receive(channel)).data)
        return message

    def _check(self, group: str, channel: str) -> None:
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)

    # What each does in this process, and what is left to do elsewhere: nothing.

    def _send(self, channel: str, message: dict[str, Any]) -> Any:
        self.require_valid_channel_name(channel)
        if not self._mailboxes.put(channel, encode(message)):
            raise ChannelFull(channel)

    def _group_send(self, group: str, message: dict[str, Any]) -> Any:
        self.require_valid_group_name(group)
        self._mailboxes.deliver(group, encode(message))

    def _group_add(self, group: str, channel: str) -> Any:
        self._check(group, channel)
        self._mailboxes.join(group, channel)

    def _group_discard(self, group: str, channel: str) -> Any:
        self._check(group, channel)
        self._mailboxes.leave(group, channel)

    async def _carry_out(self, name: str, order: Any) -> None:
        """Do what is left."""

    def _carry_out_sync(self, name: str, order: Any) -> None:
        """The same from a thread of its own."""


def encode(message: dict[str, Any]) -> bytes:
    """Raises TypeError, which says what cannot be sent, and MessageTooLarge."""
    if not isinstance(message, dict):
        raise TypeError(f"a message must be a dict, not {type(message).__name__}")
    try:
        data: bytes = _encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(
            f"this message cannot be sent: {error}; it may hold bytes, str, int64, float, list, dict, bool, None"
        ) from None
    if len(data) > MESSAGE_BYTES:
        raise MessageTooLarge(
            f"a message of {len(data)} bytes is too large: the limit is {MESSAGE_BYTES}; send it in parts"
        )
    return data


class InMemoryChannelLayer(ChannelLayer):
    """For one process, and for tests: what no other process is to hear. From any thread, on any event loop."""

    async def flush(self) -> None:
        """Forget every message and every membership."""
        self._mailboxes.clear()
