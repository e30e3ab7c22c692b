"""Sends to groups and background channels, from events and from outside of any."""

import math
import re
import secrets
from typing import Any, Literal

from asgictl.app import outcome
from asgictl.app.tracing import carried
from asgictl.errors import ConsumerError
from asgictl.wire.manifest import check_known
from asgictl.wire.messages import Broadcast, Job, Sent, plain

CONTENT_BYTES = 1 << 20
MOST_DELAY_SECONDS = 366 * 86400
NAME_LENGTH = 100  # the Channels specification's limit for a group's name


class Group:
    """A named set of WebSockets. `message.join(name)` adds to it; `send` reaches every member."""

    def __init__(self, name: str) -> None:
        self.name: str = group_name(name)

    def send(
        self,
        *,
        text: str | None = None,
        data: bytes | None = None,
        immediately: bool = False,
        if_slow: Literal["close", "drop"] = "close",
    ) -> None:
        """Send one frame to every member, when the event being handled commits: once, however often it runs.

        if_slow: of a member for whom 1 MiB waits already: its socket is closed with 1013, or this frame is dropped for
        it, and counted. immediately: send it now; should the handler run again, it is sent again.
        Outside of a consumer or view, as in a script, it leaves at once: to the Redis of ASGICTL_REDIS, or else that of
        the instance ASGICTL_NAME on this machine, or the only one; raises RedisError when that cannot be used.
        Raises ConsumerError unless exactly one of text and data is given, and if_slow is one of the two.
        """
        if if_slow not in {"close", "drop"}:
            raise ConsumerError(f"if_slow= must be 'close' or 'drop', not {if_slow!r:.60}")
        frame = outcome.frame_of(text, data)
        send(Broadcast(self.name, frame, if_slow == "drop"), immediately=immediately)


class Channel:
    """A background channel, whose consumer Application(background={name: consumer}) names."""

    def __init__(self, name: str) -> None:
        self.name: str = channel_name(name)

    def send(self, content: dict[str, Any], *, delay_seconds: float = 0, immediately: bool = False) -> None:
        """Send a dict to one of the workers, when the event being handled commits: once, however often it runs.

        content: what MessagePack can carry, at most 1 MiB encoded. delay_seconds: at least so long after the commit,
        at most 366 days. immediately, and outside of an event: as in Group.send.
        Raises UnknownChannel for a name that the application has no consumer for; ChannelFull when 10,000 messages
        wait, delayed ones included, or they take 64 MiB of Redis's memory (a handler's commit is never refused for
        that: this call is, by what the process knew up to a second ago); ConsumerError for a content or delay
        that is none.
        """
        current = outcome.current()
        trace = carried(current.headers if current else ())
        job = Job(f"job.{secrets.token_hex(8)}", 1, self.name, encoded(content), milliseconds(delay_seconds), trace)
        if current is not None and current.depths is not None:
            check_known(self.name, current.depths)
            current.depths.add(self.name, len(job.content))
        send(job, immediately=immediately)


def encoded(content: dict[str, Any]) -> bytes:
    """Encode a job's content; raises ConsumerError unless it is a dict that can be encoded."""
    if not isinstance(content, dict):
        raise ConsumerError(f"a background message must be a dict, not {type(content).__name__}")
    return outcome.encoded("a background message", content, CONTENT_BYTES)


def milliseconds(seconds: float) -> int:
    """Return a delay in milliseconds, rounded up; raises ConsumerError if it is invalid."""
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= MOST_DELAY_SECONDS:
        raise ConsumerError(f"a delay must be a number of seconds from 0 to {MOST_DELAY_SECONDS}, not {seconds!r:.60}")
    return math.ceil(seconds * 1000)


def channel_name(name: str) -> str:
    """Return the name; raises ConsumerError for one that the Channels specification does not allow."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,99}", plain(name)):
        raise ConsumerError(
            f"a channel's name must be 1 to 99 characters of a-z, A-Z, 0-9, -, _ and ., not {name!r:.120}"
        )
    return plain(name)


def group_name(name: str) -> str:
    """Return the name; raises ConsumerError unless it is 1 to 100 characters."""
    if not isinstance(name, str) or not 0 < len(plain(name)) <= NAME_LENGTH:
        raise ConsumerError(f"a group's name must be a str of 1 to {NAME_LENGTH} characters, not {name!r:.120}")
    return outcome.encodable(name)


def send(sent: Sent, *, immediately: bool) -> None:
    """Send with the commit of the event being handled, or at once; outside of an event always at once.

    Raises ConnectionResetError when Redis stays away, and outside of an event RedisError.
    """
    current = outcome.current()
    if current is None:
        from asgictl.app import outside  # no worker needs what this loads

        outside.send(sent)
    elif immediately:
        current.send_now(sent)
    else:
        current.send(sent)
