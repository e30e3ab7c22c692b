"""Send from outside of any event, and read what became of jobs: in a script, a shell, `asgictl send`."""

import os
from collections.abc import Callable
from typing import NamedTuple

from asgictl.config import CHANNEL_BYTES, CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, NotRunning, RedisError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.send_commands import send_command
from asgictl.layers.redis.sync_client import ask, check_channel
from asgictl.machine.run_dir import DEFAULT_NAME, redis_url_of, the_instance
from asgictl.wire.messages import Job, Sent
from asgictl.wire.records import is_current

NOWHERE = (
    "outside of asgictl (a script, a test, a shell, `flask run`) its Redis must be named: set ASGICTL_REDIS to its URL,"
    " or ASGICTL_NAME to an instance with an embedded Redis ({})"
)


class StandIn(NamedTuple):
    """What takes the place of Redis, as in tests. Both are as Sender has them."""

    send: Callable[[Sent], None]
    record: Callable[[str], bytes | None]


_stand_in: StandIn | None = None


class Sender:
    """Sends to one instance, from any thread. Every method raises RedisError if Redis cannot be used."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._url = redis_url
        self._keys = Keys(name)

    @classmethod
    def of_environment(cls) -> "Sender":
        """Return a Sender to the instance ASGICTL_NAME, in ASGICTL_REDIS or else in its embedded Redis.

        Without ASGICTL_NAME that is the only instance that runs here, as for commands. Raises RunDirectoryError for an
        instance whose run directory is not ours alone.
        """
        url = os.environ.get("ASGICTL_REDIS")
        try:
            name = os.environ.get("ASGICTL_NAME") or (DEFAULT_NAME if url else the_instance())
            return cls(url or redis_url_of(name), name)
        except (NotRunning, RedisError) as error:
            raise RedisError(NOWHERE.format(error)) from None

    def send(self, sent: Sent) -> None:
        """Send now. Raises UnknownChannel when a worker that was ready had no such channel, and ChannelFull.

        After a RedisError that speaks of a timeout or a lost connection, it may have been sent.
        """
        if isinstance(sent, Job):
            check_channel(self._url, self._keys, sent.name)
        command = send_command(self._keys, sent, CHANNEL_CAPACITY, CHANNEL_BYTES)
        answer = ask(self._url, lambda client: client.execute_command(*command))
        full = {0: f"{CHANNEL_CAPACITY} messages", -1: f"{CHANNEL_BYTES >> 20} MiB"}
        if isinstance(sent, Job) and answer in full:
            raise ChannelFull(sent.name, full[answer])

    def record(self, id: str) -> bytes | None:
        """Return the content of a job's record; None for one that is unknown, or has expired."""
        if not is_current(id):
            return None
        command = ("ZRANGE", self._keys.records, f"[{id} ", f"({id}!", "BYLEX")
        found: list[bytes] = ask(self._url, lambda client: client.execute_command(*command))
        return found[0].split(b" ", 2)[2] if found else None


def send(sent: Sent) -> None:
    """Send now, as Sender.send has it."""
    (_stand_in or Sender.of_environment()).send(sent)


def record(id: str) -> bytes | None:
    """Return the content of a job's record, as Sender.record has it."""
    return (_stand_in or Sender.of_environment()).record(id)


def use(stand_in: StandIn | None) -> StandIn | None:
    """Replace Redis for sends and records, as in tests; None restores it. Returns the last one."""
    global _stand_in
    before, _stand_in = _stand_in, stand_in
    return before
