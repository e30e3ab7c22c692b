"""How what is sent to groups and background channels gets to Redis, within a commit and outside of one."""

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.wire.messages import VERSION, Broadcast, Sent, encode

SEND = script("send")
_WEIGH = script("weigh")
_UNLESS_FULL = """
if redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then return 0 end
if weigh(KEYS[1], KEYS[2], KEYS[3], 0) + #ARGV[3] > tonumber(ARGV[5]) then return -1 end
weigh(KEYS[1], KEYS[2], KEYS[3], #ARGV[3])
"""
_SEND_ONE = """
send(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
Command = tuple[str | bytes | int, ...]


def send_arguments(keys: Keys, sent: Sent) -> tuple[str, int, bytes]:
    """Return what commit.lua sends: stream, delay in milliseconds, value."""
    if isinstance(sent, Broadcast):
        return keys.broadcast, 0, encode(sent)[1]
    return keys.channel(sent.channel), sent.delay_milliseconds, encode(sent)[1]


def send_command(keys: Keys, sent: Sent, capacity: int = 0, capacity_bytes: int = 0) -> Command:
    """Send outside of a commit.

    capacity, capacity_bytes: of a background channel, in messages and in bytes of Redis's memory; both 0 for none.
    Answered with 0 when so many wait, with -1 when they take so much.
    """
    stream, delay, value = send_arguments(keys, sent)
    if isinstance(sent, Broadcast):
        return ("XADD", stream, "*", *encode(sent))
    check = _WEIGH + _UNLESS_FULL if capacity else ""
    names = (stream, keys.delayed(sent.channel), keys.weight(sent.channel))
    return ("EVAL", SEND + check + _SEND_ONE, 3, *names, delay, str(VERSION), value, capacity, capacity_bytes)


def weigh_command(keys: Keys, channel: str) -> Command:
    """Ask how many bytes of Redis's memory a background channel's messages take; known up to a second ago."""
    names = (keys.channel(channel), keys.delayed(channel), keys.weight(channel))
    return ("EVAL", _WEIGH + "return weigh(KEYS[1], KEYS[2], KEYS[3], 0)", 3, *names)
