"""Who lives, and what happens to what the dead held.

Every process renews a lease in Redis each second, and moves the delayed messages whose time has come. A lease that
lapses, or a death that the controller saw, is acted upon by whoever hears of it: the scripts do their work once,
however often they are called. A process that finds its own lease taken away is FENCED: others have its work, so it
drops what it holds and ends.

An interface sends these commands over its Link; everybody else through redis-py.
"""

import logging
import secrets
from typing import Any, NamedTuple

import redis

from asgictl.config import SILENT_SECONDS
from asgictl.layers.redis.dead_letters import DEAD_LETTER
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Command
from asgictl.wire.messages import VERSION

logger = logging.getLogger("asgictl.layers")
_SCRIPTS = ("beat", "reap_interface", "take_back", "reap_worker", "release")
_BEAT, _REAP_INTERFACE, _TAKE_BACK, _REAP_WORKER, _RELEASE = map(script, _SCRIPTS)
LEAST_LEASE_SECONDS = 3.0  # three beats
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
    """The answer to a beat. dead: members whose lease has lapsed."""

    epoch: bytes
    fenced: bool
    dead: list[str]


def beat(client: redis.Redis, keys: Keys, role: str, id: str, epoch: bytes) -> Beat:
    """Beat through redis-py, and act upon the deaths that it tells of. Raises redis-py's errors."""
    answer = beat_answer(client.execute_command(*beat_command(keys, role, id, epoch)))
    for dead in answer.dead:
        try:
            reap(client, keys, dead)
        except redis.ResponseError as error:  # whoever hears of it next tries again; our own lease matters more
            logger.error("%s is dead and could not be seen to: %s", dead, error)
    return answer


def reap(client: redis.Redis, keys: Keys, dead: str, *, seen: bool = False, started: tuple[str, ...] = ("?",)) -> None:
    """Release what a dead worker held, or reap a dead interface; arguments as reap_command has them."""
    count = client.execute_command(*reap_command(keys, dead, seen=seen, started=started))
    if count > 0:
        logger.warning("%s is dead: %d events or connections of its were seen to", dead, count)


def member(role: str, id: str) -> str:
    """Return the name under which a process is known to be alive."""
    return f"{role}/{id}"


def beat_command(keys: Keys, role: str, id: str, epoch: bytes) -> Command:
    """Renew the lease of a process that knows this epoch, b"" at first."""
    names = (keys.alive, keys.epoch, keys.clock, keys.grace, keys.channels)
    return ("EVAL", _BEAT, 5, *names, member(role, id), LEASE_MILLISECONDS[role], epoch, secrets.token_hex(8))


def beat_answer(reply: list[Any]) -> Beat:
    """Decode what beat_command returned."""
    return Beat(reply[0], bool(reply[1]), [name.decode() for name in reply[2:]])


def leave_command(keys: Keys, role: str, id: str) -> Command:
    """End the lease of a process that leaves in order."""
    return ("ZREM", keys.alive, member(role, id))


def reap_command(keys: Keys, dead: str, *, seen: bool = False, started: tuple[str, ...] = ("?",)) -> Command:
    """Release what a dead worker held, or reap a dead interface; to be called again while it returns more than 0.

    seen: its death was seen, so its lease need not have lapsed. started: the entries that it had started.
    """
    role, _, id = dead.partition("/")
    if role == "worker":
        names, prefixes = (keys.alive, keys.channels), (keys.replies(""), keys.inbox(""))
        return (
            "EVAL",
            DEAD_LETTER + _TAKE_BACK + _REAP_WORKER,
            2,
            *names,
            dead,
            int(seen),
            *prefixes,
            str(VERSION),
            keys.dead,
            *started,
        )
    own = (keys.replies(id), keys.turns(id), keys.farewells(id))
    return ("EVAL", _REAP_INTERFACE, 5, keys.alive, keys.channels, *own, dead, int(seen), str(VERSION), keys.inbox(""))


def give_back_command(keys: Keys, held: list[tuple[bytes, bytes]]) -> Command:
    """Give back events, as stream and entry, that a live worker has in hand and has not started."""
    streams, entries = zip(*held, strict=True)
    return (
        "EVAL",
        DEAD_LETTER + _TAKE_BACK + _RELEASE,
        len(held),
        *streams,
        keys.replies(""),
        str(VERSION),
        keys.dead,
        *entries,
    )
