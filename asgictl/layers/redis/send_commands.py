"""How what is sent to groups and background channels gets to Redis, within a commit and outside of one."""

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.wire.messages import VERSION, Broadcast, Sent, encode

SEND = script("send")
_SEND_ONE = """
local depth = redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])
if tonumber(ARGV[4]) > 0 and depth >= tonumber(ARGV[4]) then return 0 end
send(KEYS[tonumber(ARGV[1]) == 0 and 1 or 2], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
Command = tuple[str | bytes | int, ...]


def send_arguments(keys: Keys, sent: Sent) -> tuple[str, int, bytes]:
    """Return what commit.lua sends: the key where it goes, delay in milliseconds, value."""
    if isinstance(sent, Broadcast):
        return keys.broadcast, 0, encode(sent)[1]
    key = keys.delayed(sent.channel) if sent.delay_milliseconds else keys.channel(sent.channel)
    return key, sent.delay_milliseconds, encode(sent)[1]


def send_command(keys: Keys, sent: Sent, capacity: int = 0) -> Command:
    """Send outside of a commit. capacity: of a background channel, 0 for none; answered with 0 when it is full."""
    if isinstance(sent, Broadcast):
        return ("XADD", keys.broadcast, "*", *encode(sent))
    names = (keys.channel(sent.channel), keys.delayed(sent.channel))
    return ("EVAL", SEND + _SEND_ONE, 2, *names, sent.delay_milliseconds, str(VERSION), encode(sent)[1], capacity)
