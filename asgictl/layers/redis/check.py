"""Whether a Redis can carry an instance: found out before anything says that it is ready."""

import re
from collections.abc import Iterable
from typing import Any

import hiredis
import redis

from asgictl.errors import RedisError
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.link import pack
from asgictl.layers.redis.sync_connection import SyncConnection

MINIMUM_VERSION = (6, 2)
# Every command that an instance sends, or that a script of ours calls, with arguments that Redis takes; K: a key.
_COMMANDS = """
PING | INFO | TIME | CLIENT ID | CLIENT UNBLOCK 0 | SCRIPT LOAD return | EVAL return 0 | EVALSHA 0 0
GET K | MGET K | SET K 0 | DEL K | EXISTS K | TYPE K | PTTL K | PEXPIRE K 1 | MEMORY USAGE K
HGET K f | HSET K f v | HDEL K f | HGETALL K | HKEYS K | SADD K m | SREM K m | SMEMBERS K
ZADD K 0 m | ZREM K m | ZCARD K | ZSCORE K m | ZRANGE K 0 0 | ZRANGEBYSCORE K 0 0 | ZREMRANGEBYSCORE K 0 0
XADD K * f v | XDEL K 0-1 | XLEN K | XRANGE K - + | XREVRANGE K + - | XTRIM K MAXLEN 0 | XSETID K 0-1
XREAD STREAMS K 0 | XREADGROUP GROUP g c STREAMS K 0 | XACK K g 0-1 | XPENDING K g
XGROUP CREATE K g 0 | XGROUP CREATECONSUMER K g c | XGROUP DELCONSUMER K g c | XINFO CONSUMERS K g | XINFO GROUPS K
"""
SUBCOMMANDS = {"CLIENT", "SCRIPT", "MEMORY", "XGROUP", "XINFO"}
_TRY = """
redis.call('XADD', KEYS[1], '*', 'field', cmsgpack.pack({1}))
return redis.call('XLEN', KEYS[1]) + redis.call('DEL', KEYS[1])
"""


COMMANDS = [each.split() for each in re.split(r" \| |\n", _COMMANDS.strip())]


def check_redis(url: str, name: str) -> None:
    """Raise RedisError, saying what to do, unless the Redis at `url` can carry the events of the instance `name`."""
    found = endpoint(url)
    where = f"Redis at {found.shown}"
    try:
        _check_user(url, found.user, Keys(name).check)
        with found.client() as client:
            _check_server(client)
            client.eval(_TRY, 1, Keys(name).check)
    except _Unfit as error:
        raise RedisError(f"{where} {error}") from None
    except redis.AuthenticationError:
        raise RedisError(f"{where} needs a password, or another one; use --redis redis://:PASSWORD@host:port") from None
    except redis.ResponseError as error:
        raise RedisError(f"{where} cannot be written to: {error}") from None
    except (OSError, redis.RedisError) as error:
        raise RedisError(
            f"{where} cannot be used: {error}; check that it is running and that --redis is right"
        ) from None


class _Unfit(Exception):
    """Its text says why."""


def _check_user(url: str, user: str, key: str) -> None:
    """Queue every command in a transaction that is never executed: Redis refuses at once what a user may not do."""
    connection = SyncConnection(url)
    try:
        refused = _refused(connection, [["MULTI"]])
        if not refused:  # else they would be executed
            refused = _refused(connection, ([key if word == "K" else word for word in each] for each in COMMANDS))
    finally:
        connection.close()
    grants = {_grant(command, words, key): None for command, words in refused.items() if words.startswith("NOPERM ")}
    if grants:
        raise _Unfit(f"denies {user!r} what asgictl needs: ACL SETUSER {user} {' '.join(grants)}")
    for command, words in refused.items():
        raise _Unfit(f"rejects {command}: {words}")


def _refused(connection: SyncConnection, commands: Iterable[list[str]]) -> dict[str, str]:
    """Return which of these commands are refused, as ACL names them, and in which words."""
    names = []
    for command in commands:
        connection.send(pack(tuple(command)))
        names.append("|".join(command[: 2 if command[0] in SUBCOMMANDS else 1]).lower())
    answers = [(name, connection.receive()) for name in names]
    return {name: str(answer) for name, answer in answers if isinstance(answer, hiredis.ReplyError)}


def _grant(command: str, words: str, key: str) -> str:
    is_of_key = "command" not in words  # "No permissions to access a key"
    return f"~{key.removesuffix('check')}*" if is_of_key else f"+{command}"


def _check_server(client: redis.Redis) -> None:
    info: Any = client.info()
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < MINIMUM_VERSION:
        raise _Unfit(f"is {info['redis_version']}; asgictl needs 6.2 or later")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise _Unfit(f"may evict events: set its maxmemory-policy to noeviction, not {policy}")
