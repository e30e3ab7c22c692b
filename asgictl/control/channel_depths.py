"""How full the channels are, as an operator asks it of Redis."""

from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import redis

from asgictl.errors import WireError
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.wire.manifest import Router, event_channels

# What a worker has taken stands in its stream until its commit; so what waits is what lies behind the workers' cursor.
_LOOK = """
local time, found = redis.call('TIME'), {}
for _, stream in ipairs(KEYS) do
  local depth, taken, cursor, readers = redis.pcall('XLEN', stream), 0, '-', 0
  if type(depth) == 'number' then -- else it is no stream
    if redis.call('EXISTS', stream) == 1 then
      for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        if group[2] == ARGV[1] then readers, taken, cursor = group[4], group[6], '(' .. group[8] end
      end
    end
    local first = redis.pcall('XRANGE', stream, cursor, '+', 'COUNT', 1)[1]
    table.insert(found, {stream, depth, taken, first and first[1] or '', readers})
  end
end
return {time[1], time[2], found}
"""


class Channel(NamedTuple):
    """depth: events waiting or taken. taken: by workers. oldest_seconds: what waits longest, 0 when nothing waits.

    readers: threads of workers that read it.
    """

    depth: int
    taken: int
    oldest_seconds: float
    readers: int


def look(client: redis.Redis, keys: Keys) -> dict[str, Channel]:
    """Return every channel that a worker has read, or that the application has. Raises redis-py's errors.

    By name, with workers' own beside it.

    Names of other things are left out; a beat removes them (beat.lua).
    """
    prefix = keys.channel("")
    with client.pipeline(transaction=False) as pipe:
        pipe.smembers(keys.channels)
        pipe.zrange(keys.own, 0, -1)
        pipe.get(keys.manifest)
        known, own, manifest = pipe.execute()
    with suppress(WireError):
        known |= {keys.channel(each).encode() for each in event_channels(Router.decode(manifest or b"").manifest)}
    streams = [each for each in chain(known, own) if each.isascii() and each.startswith(prefix.encode())]
    answer: Any = client.eval(_LOOK, len(streams), *streams, WORKERS)
    now = int(answer[0]) + int(answer[1]) / 1e6
    found: dict[str, Channel] = {}
    for stream, depth, taken, first, readers in sorted(answer[2]):
        age = max(now - int(first.partition(b"-")[0]) / 1000, 0.0) if first else 0.0
        name = stream.decode().removeprefix(prefix).partition("@")[0]
        others = found.get(name, Channel(0, 0, 0.0, 0))
        found[name] = Channel(
            *(depth + others.depth, taken + others.taken, max(age, others.oldest_seconds), readers + others.readers)
        )
    return found
