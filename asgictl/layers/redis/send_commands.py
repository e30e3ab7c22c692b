"""How what is sent to groups and background channels gets to Redis, within a commit and outside of one."""

import logging

from asgictl.config import RECORDS_BYTES
from asgictl.layers.base import Reject
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.wire.messages import VERSION, Broadcast, Frames, Reply, Sent, encode
from asgictl.wire.records import JobRecord

logger = logging.getLogger("asgictl.layers")
SEND = f"local most_bytes = {RECORDS_BYTES}\n" + script("keep") + script("send")
KEEP = -1  # stands for the delay of what is kept
SENDER = b"sender"  # the field of a broadcast that may come twice
REFUSED_SENDS = "group messages and jobs rejected by Redis"
MISSING = 1000  # of numbers that are missing, the newest are waited for
SENDERS = 1000  # whose last broadcast is known; an instance has fewer processes
_WEIGH = script("weigh")
_UNLESS_FULL = """
if redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then return 0 end
if weigh(KEYS[1], KEYS[2], KEYS[3], 0) + #ARGV[3] > tonumber(ARGV[5]) then return -1 end
weigh(KEYS[1], KEYS[2], KEYS[3], #ARGV[3])
"""
_SEND_ONE = """
send(KEYS[tonumber(ARGV[1]) == 0 and 1 or 2], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
Command = tuple[str | bytes | int, ...]


def send_arguments(keys: Keys, sent: Sent) -> tuple[str, int, bytes]:
    """Return what commit.lua sends: the key where it goes, delay in milliseconds, value."""
    if isinstance(sent, Broadcast):
        return keys.broadcast, 0, encode(sent)[1]
    if isinstance(sent, JobRecord):
        return keys.records, KEEP, sent.value
    key = keys.delayed(sent.channel) if sent.delay_milliseconds else keys.channel(sent.channel)
    return key, sent.delay_milliseconds, encode(sent)[1]


class _Heard:
    """Which numbers of a sender have been heard: up to the last all but those that Redis refused and may take later."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._missing: set[int] = set()

    def is_new(self, number: int) -> bool:
        if number <= self._last:
            is_missing = number in self._missing
            self._missing.discard(number)
            return is_missing
        self._missing.update(range(max(self._last + 1, number - MISSING), number))
        if len(self._missing) > MISSING:
            self._missing = {each for each in self._missing if each >= number - MISSING}
        self._last = number
        return True


class Broadcasts:
    """Numbers the broadcasts of one sender, and knows those of others that come twice. sender: an id that is unique."""

    def __init__(self, sender: str) -> None:
        self._sender = sender.encode()
        self._sent = 0
        self._heard: dict[bytes, _Heard] = {}  # by sender

    def command(self, keys: Keys, sent: Frames | Sent) -> Command:
        """Return what sends it outside of a commit; a broadcast may be sent again, in its order: it is heard once."""
        if isinstance(sent, Frames):
            return reply_command(keys, sent)
        if not isinstance(sent, Broadcast):
            return send_command(keys, sent)
        self._sent += 1
        return (*send_command(keys, sent), SENDER, b"%b %d" % (self._sender, self._sent))

    def is_new(self, fields: list[bytes]) -> bool:
        """Whether an entry has not been heard before; what a commit sends has no number, and comes once."""
        if len(fields) < 4 or fields[2] != SENDER:
            return True
        sender, _, number = fields[3].rpartition(b" ")
        heard = self._heard.pop(sender) if sender in self._heard else _Heard(int(number) - 1)
        self._heard[sender] = heard
        if len(self._heard) > SENDERS:
            del self._heard[next(iter(self._heard))]  # who has not sent for longest
        return heard.is_new(int(number))


def published(reply: object, reject: Reject) -> None:
    """Log and count what Redis refused to send; called with its answer."""
    if isinstance(reply, Exception):
        logger.error("a message to a group or a channel was lost: %s", reply)
        reject(REFUSED_SENDS)


def reply_command(keys: Keys, reply: Reply) -> Command:
    """Reply to the interface that holds a connection; answered with None when it is no more."""
    return ("XADD", keys.replies(reply.connection), "NOMKSTREAM", "*", *encode(reply))


def send_command(keys: Keys, sent: Sent, capacity: int = 0, capacity_bytes: int = 0) -> Command:
    """Send outside of a commit.

    capacity, capacity_bytes: of a background channel, in messages and in bytes of Redis's memory; both 0 for none.
    Answered with 0 when so many wait, with -1 when they take so much.
    """
    if isinstance(sent, Broadcast):
        return ("XADD", keys.broadcast, "*", *encode(sent))
    if isinstance(sent, JobRecord):
        return ("EVAL", SEND + "keep(KEYS[1], ARGV[1])", 1, keys.records, sent.value)
    check = _WEIGH + _UNLESS_FULL if capacity else ""
    names = (keys.channel(sent.channel), keys.delayed(sent.channel), keys.weight(sent.channel))
    delay, value = sent.delay_milliseconds, encode(sent)[1]
    return ("EVAL", SEND + check + _SEND_ONE, 3, *names, delay, str(VERSION), value, capacity, capacity_bytes)


def weigh_command(keys: Keys, channel: str) -> Command:
    """Ask how many bytes of Redis's memory a background channel's messages take; known up to a second ago."""
    names = (keys.channel(channel), keys.delayed(channel), keys.weight(channel))
    return ("EVAL", _WEIGH + "return weigh(KEYS[1], KEYS[2], KEYS[3], 0)", 3, *names)
