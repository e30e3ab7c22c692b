"""Who lives, and what happens to what the dead held.

Every process renews a lease in Redis each second, and moves the delayed messages whose time has come. A lease that
lapses, or a death that the controller saw, is acted upon by whoever hears of it: the scripts do their work once,
however often they are called. A script that reaps learns from Redis which keys it needs; it answers with those that
were not declared, and is called again with them. A process that finds its own lease taken away is FENCED: others have
its work, so it drops what it holds and ends.

An interface sends these commands over its Link; everybody else through redis-py.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import redis

from asgictl.config import SILENT_SECONDS
from asgictl.layers.base import Entry, Reject, ignored
from asgictl.layers.redis.dead_letters import DEAD_LETTER
from asgictl.layers.redis.keys import Keys, delayed_of
from asgictl.layers.redis.process_records import record_command
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Command
from asgictl.wire.messages import BACKGROUND, VERSION, Job

logger = logging.getLogger("asgictl.layers")
_BEAT, _MOVE_DUE = script("beat"), script("move_due")
_DECLARED, _TAKE_BACK = script("declared"), script("take_back")
_BUSY = script("busy")
_REAP_INTERFACE = _DECLARED + _BUSY + script("reap_interface")
_REAP_CONNECTIONS = _DECLARED + _BUSY + script("reap_connections")
_REAP_WORKER = _DECLARED + DEAD_LETTER + _TAKE_BACK + script("reap_worker")
_RELEASE = _DECLARED + _TAKE_BACK + script("release")
REAP_CALLS = 8  # with more keys each time: three do unless processes come and go meanwhile; then the next beat goes on
REAP_CONNECTIONS = 200  # in one call, which Redis does at once
REMOVED = "Redis data removed: not written by asgictl"  # why they are counted: once each, for then they are gone
BEAT_SECONDS = 1.0
LEAST_LEASE_SECONDS = 3 * BEAT_SECONDS
LEASE_MILLISECONDS = {"worker": 0, "interface": 0}


def set_leases(silent_seconds: float) -> None:
    """Have this process's leases follow --silent-seconds; called once, before the first beat.

    A worker's lapses before the worker is ended, so that its events run elsewhere at once. An interface's outlives a
    Redis that restarts.
    """
    LEASE_MILLISECONDS.update({role: int(1000 * seconds) for role, seconds in leases_of(silent_seconds).items()})


def leases_of(silent_seconds: float) -> dict[str, float]:
    """Return for how many seconds each role's lease holds."""
    return {"worker": max(silent_seconds - 1, LEAST_LEASE_SECONDS), "interface": max(silent_seconds + 9, 15)}


set_leases(SILENT_SECONDS)


class Beat(NamedTuple):
    """The answer to a beat. dead: members whose lease has lapsed. background: streams of background channels.

    removed: names of what stood in the place of something of ours, and was removed.
    """

    epoch: bytes
    fenced: bool
    dead: list[str]
    background: tuple[str, ...] = ()
    removed: tuple[bytes, ...] = ()

    def tell(self, reject: Reject) -> None:
        """Log and count what was removed."""
        for _ in self.removed:
            reject(REMOVED)
        if self.removed:
            logger.error(
                "removed %d values in Redis that asgictl had not written: %r", len(self.removed), self.removed[:3]
            )


def beat(
    client: redis.Redis,
    keys: Keys,
    role: str,
    id: str,
    epoch: bytes,
    *,
    channels: Sequence[str] = (),
    manifest: bytes = b"",
    record: bytes = b"",
    reject: Reject = ignored,
) -> Beat:
    """Beat through redis-py, act upon the deaths that it tells of, move what is due. Raises redis-py's errors.

    channels, manifest: as beat_command has them. record: of this process, kept beside; none is. reject: told of each
    thing that was none of ours, in a fixed word.
    """
    with client.pipeline(transaction=False) as pipe:  # one round trip
        pipe.execute_command(*beat_command(keys, role, id, epoch, channels, manifest))
        if record:
            pipe.execute_command(*record_command(keys, id, record))
        reply = pipe.execute(raise_on_error=False)[0]
    if isinstance(reply, Exception):
        raise reply
    answer = beat_answer(reply)
    answer.tell(reject)
    for dead in answer.dead:
        try:
            reap(client, keys, dead)
        except redis.ResponseError as error:  # whoever hears of it next tries again; our own lease matters more
            logger.error("could not reap %s: %s", dead, error)
    if answer.background:
        try:
            moved(client.execute_command(*move_due_command(answer.background)), reject)
        except redis.ResponseError as error:  # the next beat tries again
            logger.error("delayed messages could not be moved: %s", error)
    return answer


def reap(client: redis.Redis, keys: Keys, dead: str, *, seen: bool = False, started: tuple[str, ...] = ("?",)) -> int:
    """Release what a dead worker held, or reap a dead interface; arguments and result are reap_command's."""
    touched: list[bytes] = []
    for _ in range(REAP_CALLS):
        answer = client.execute_command(*reap_command(keys, dead, seen=seen, started=started, touched=touched))
        if not isinstance(answer, list):
            break
        touched += answer
    else:
        logger.warning("%s is not reaped before the next heartbeat: other processes change its keys", dead)
        return -1
    if answer > 0:
        logger.warning("reaped %s: %d of its events or connections", dead, answer)
    return int(answer)


def reap_over(
    call: Callable[..., object], keys: Keys, dead: str, touched: tuple[bytes, ...] = (), calls: int = 1
) -> None:
    """Reap as reap() does over a Link; call: the Link's. Should it fail, the next beat tells of this death again."""

    def answered(reply: object) -> None:
        if isinstance(reply, list) and calls < REAP_CALLS:
            reap_over(call, keys, dead, (*touched, *reply), calls + 1)

    call(*reap_command(keys, dead, touched=touched), answered=answered)


def member(role: str, id: str) -> str:
    """Return the name under which a process is known to be alive."""
    return f"{role}/{id}"


def living(client: redis.Redis, keys: Keys, role: str) -> int:
    """Return how many processes of a role hold a lease. Raises redis-py's errors."""
    members: Any = client.zrange(keys.alive, 0, -1)
    return sum(each.startswith(member(role, "").encode()) for each in members)


def beat_command(
    keys: Keys, role: str, id: str, epoch: bytes, channels: Sequence[str] = (), manifest: bytes = b""
) -> Command:
    """Renew the lease of a process that knows this epoch, b"" at first, and have known which channels it serves.

    Its own channels are created with it, and take events from then on (see own_channels).
    manifest: of a worker's release. It is kept where it is the newest, and comes back when the newest has no worker
    left.
    """
    types = _types(keys) | {keys.channel(channel): "stream" for channel in channels}
    types |= {keys.delayed(channel): "zset" for channel in channels if channel.startswith(BACKGROUND)}
    if role == "interface":
        types |= {keys.turns(id): "hash", keys.last_wills(id): "hash"}
    arguments = (member(role, id), LEASE_MILLISECONDS[role], epoch, secrets.token_hex(8))
    return ("EVAL", _BEAT, len(types), *types, *arguments, *types.values(), manifest)


def _types(keys: Keys) -> dict[str, str]:
    """Return the type of each key that a whole instance shares; the first seven are those of beat.lua."""
    leases = {
        keys.alive: "zset",
        keys.epoch: "string",
        keys.clock: "string",
        keys.grace: "string",
        keys.channels: "set",
        keys.manifest: "string",
        keys.own: "zset",
    }
    leases |= {keys.dead: "stream", keys.records: "zset", keys.heard: "zset"}
    return leases | {keys.broadcast: "stream", keys.trimmed: "string"}


def beat_answer(reply: list[Any]) -> Beat:
    """Decode what beat_command returned."""
    epoch, fenced, dead, background, removed = reply
    streams = tuple(stream.decode() for stream in background)
    return Beat(epoch, bool(fenced), [name.decode() for name in dead], streams, tuple(removed))


def move_due_command(streams: Iterable[str]) -> Command:
    """Move the delayed messages of these background channels whose time has come."""
    names = [name for stream in streams for name in (stream, delayed_of(stream))]
    return ("EVAL", _MOVE_DUE, len(names), *names)


def moved(reply: object, reject: Reject) -> None:
    """Log and count what was none of the messages that move_due_command was to move; called with its answer."""
    if isinstance(reply, int) and reply:
        for _ in range(reply):
            reject(REMOVED)
        logger.error("removed %d delayed messages that asgictl had not written", reply)


def leave_command(keys: Keys, role: str, id: str) -> Command:
    """End the lease of a process that leaves in order."""
    return ("ZREM", keys.alive, member(role, id))


def reap_command(
    keys: Keys, dead: str, *, seen: bool = False, started: tuple[str, ...] = ("?",), touched: Sequence[bytes] = ()
) -> Command:
    """Release what a dead worker held, or reap a dead interface; to be called again while it returns more than 0.

    It returns how many events or connections there were, or -1 while the lease lives; or, having done nothing, a list
    of the keys that `touched` lacks: those that it is to touch, beside its own.

    seen: its death was seen, so its lease need not have lapsed. started: the entries that it had started.
    """
    role, _, id = dead.partition("/")
    names: Command = (keys.alive, keys.channels)
    if role == "worker":
        names = (*names, keys.dead, keys.own, *touched)
        prefixes = (keys.replies(""), keys.inbox(""))
        return ("EVAL", _REAP_WORKER, len(names), *names, dead, int(seen), *prefixes, str(VERSION), *started)
    names = (*names, *keys.of_interface(id), *touched)
    return ("EVAL", _REAP_INTERFACE, len(names), *names, dead, int(seen), str(VERSION), keys.inbox(""))


def reap_connections_command(
    keys: Keys, identity: str, connections: Sequence[bytes], touched: Sequence[bytes] = ()
) -> Command:
    """Emit the disconnect events of connections that nobody holds any more; their identity lives on.

    The answer is reap_command's. At most REAP_CONNECTIONS of them a call.
    """
    _, turns, last_wills = keys.of_interface(identity)
    names: Command = (keys.channels, turns, last_wills, *touched)
    return ("EVAL", _REAP_CONNECTIONS, len(names), *names, str(VERSION), keys.channel(""), *connections)


def release_command(keys: Keys, held: Sequence[Entry]) -> Command:
    """Return the command that releases events which a live worker has prefetched and not started."""
    streams = [entry.stream for entry in held]
    replies = {keys.replies(entry.event.connection) for entry in held if not isinstance(entry.event, Job)}
    names: Command = (*streams, *replies)
    return ("EVAL", _RELEASE, len(names), *names, keys.replies(""), str(VERSION), *(entry.id for entry in held))
