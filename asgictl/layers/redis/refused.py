"""What becomes of a commit that Redis refuses: it is tried again for a while, then its event ends.

A refusal may come before anything was done, as NOPERM of XACK, or behind the XACK, as NOPERM of XADD. So the same
commit is sent again: it is done as if nothing had happened, or refused as one whose entry is gone, and the interface
sees that no reply is coming. After REFUSED_SECONDS the event ends by single commands, of which some may be allowed.
"""

from typing import NamedTuple

from msgspec.structs import replace

from asgictl.layers.base import Entry
from asgictl.layers.redis.dead_letters import dead_letter_command
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.layers.redis.send_commands import Command, reply_command
from asgictl.wire.error_responses import APPLICATION_FAILED, plain_text
from asgictl.wire.messages import INTERNAL_ERROR, Close, Done, LastReply, Response, encode

AGAIN_SECONDS = 0.5  # between two attempts
REFUSED_BYTES = 16 << 20  # of refused commits that a thread keeps; then those that are refused next end at once
REFUSED = "commits rejected by Redis"


class Commit(NamedTuple):
    """What is committed. reply: None for a job."""

    entry: Entry
    reply: LastReply


def failure(reply: LastReply) -> LastReply:
    """Return what ends an event in the stead of its reply: 500, a response cut off, 1011; None for a job."""
    if isinstance(reply, Response):
        headers, body = plain_text(APPLICATION_FAILED)
        if reply.sequence:
            return replace(reply, body=b"", more=False, aborted=True)
        return replace(reply, status=500, headers=headers, body=body, more=False)
    if isinstance(reply, Done):
        close = Close(INTERNAL_ERROR, "", 500)
        return replace(reply, frames=[], state=b"", accept=None, close=close, joins=[], leaves=[])
    return None


def end_commands(keys: Keys, commit: Commit, words: str) -> list[Command]:
    """Return what ends an event whose commit is refused: each helps, even if others are refused.

    The last one, its XACK, is to be tried until it is done: else the entry would be its worker's for ever.
    """
    entry, ended = commit.entry, failure(commit.reply)
    channel, payload = entry.stream.decode().partition("}:ch:")[2], encode(entry.event)[1]
    commands: list[Command] = [
        dead_letter_command(keys, channel, payload, f"Redis rejected its commit: {words}"),
        ("XDEL", entry.stream, entry.id),
        ("XACK", entry.stream, WORKERS, entry.id),
    ]
    if ended:
        commands.insert(0, reply_command(keys, ended))
    return commands
