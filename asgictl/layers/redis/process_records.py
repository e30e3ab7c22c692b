"""What the processes of an instance say of themselves, wherever they run: a record each, which it renews each second.

A record outlives its process by RECORD_SECONDS, so that one which is gone for good is missed; who leaves in order
deregisters.
"""

from typing import Any, NamedTuple

import redis

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import Command

RECORD_SECONDS = 60
_RECORD = script("record")


class Records(NamedTuple):
    """records: of each process, encoded, and how many seconds ago Redis had it. now: Redis's clock, epoch seconds.

    manifest: of the newest release that has workers, encoded; None where none has.
    """

    now: float
    records: list[tuple[float, bytes]]
    manifest: bytes | None


def record_command(keys: Keys, id: str, record: bytes) -> Command:
    """Renew a process's record; an empty one deregisters the process."""
    return ("EVAL", _RECORD, 2, keys.heard, keys.record(id), id, record, RECORD_SECONDS * 1000)


def read_records(client: redis.Redis, keys: Keys) -> Records:
    """Return all records. Raises redis-py's errors."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.heard, 0, -1, withscores=True)
        pipe.get(keys.manifest)
        (seconds, microseconds), heard, manifest = pipe.execute()
    now = seconds + microseconds / 1e6
    found: Any = client.mget([keys.record(id.decode()) for id, _ in heard]) if heard else []
    records = [
        (max(now - at / 1000, 0.0), record) for (_, at), record in zip(heard, found, strict=True) if record is not None
    ]
    return Records(now, records, manifest)
