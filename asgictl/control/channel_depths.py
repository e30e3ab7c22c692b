"""How full the channels are, as an operator asks it of Redis."""

from typing import Any, NamedTuple

import redis

from asgictl.layers.redis.keys import WORKERS, Keys

# What a worker has taken stands in its stream until its commit; so what waits is what lies behind the workers' cursor.
_LOOK = """
local time, found = redis.call('TIME'), {}
for _, stream in ipairs(KEYS) do
  local depth, taken, cursor = redis.pcall('XLEN', stream), 0, '-'
  if type(depth) == 'number' then -- else it is no stream
    if redis.call('EXISTS', stream) == 1 then
      for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        if group[2] == ARGV[1] then taken, cursor = group[6], '(' .. group[8] end
      end
    end
    local first = redis.pcall('XRANGE', stream, cursor, '+', 'COUNT', 1)[1]
    table.insert(found, {stream, depth, taken, first and first[1] or ''})
  end
end
return {time[1], time[2], found}
"""


class Channel(NamedTuple):
    """depth: events waiting or taken. taken: by workers. oldest_seconds: what waits longest, 0 when nothing waits."""

    depth: int
    taken: int
    oldest_seconds: float


def look(client: redis.Redis, keys: Keys) -> dict[str, Channel]:
    """Return every channel that a worker has read, by name. Raises redis-py's errors.

    Names of other things are left out; a beat removes them (beat.lua).
    """
    prefix = keys.channel("")
    members: Any = client.smembers(keys.channels)
    streams = [each for each in members if each.isascii() and each.startswith(prefix.encode())]
    answer: Any = client.eval(_LOOK, len(streams), *streams, WORKERS)
    now = int(answer[0]) + int(answer[1]) / 1e6
    found = {}
    for stream, depth, taken, first in sorted(answer[2]):
        age = max(now - int(first.partition(b"-")[0]) / 1000, 0.0) if first else 0.0
        found[stream.decode().removeprefix(prefix)] = Channel(depth, taken, age)
    return found
