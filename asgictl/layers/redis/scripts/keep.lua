-- Keep the record of a job (wire/records.py). Stands in front of send.lua, behind `most_bytes`.
-- value: id · stage, one digit · content, with spaces between. A record never replaces one of a later stage.
-- A zset whose scores are all 0 is a map in the order of its keys. Ids begin with the millisecond of their expiry, so the
-- oldest come first. In front of them stands `! N`, how many bytes the records take.
local overhead = 100 -- bytes of Redis's memory for a member, beside its own
local function keep(key, value)
  local id, stage = string.match(value, '^(%w+) (%d)')
  local old = redis.call('ZRANGE', key, '[' .. id .. ' ', '(' .. id .. '!', 'BYLEX')[1]
  if old and string.sub(old, #id + 2, #id + 2) > stage then
    return
  end
  redis.call('ZADD', key, 0, value)
  local bytes = overhead + #value
  if old and old ~= value then
    redis.call('ZREM', key, old)
  end
  bytes = bytes - (old and overhead + #old or 0)
  local counter = redis.call('ZRANGE', key, 0, 0)[1]
  if string.sub(counter, 1, 1) == '!' then
    redis.call('ZREM', key, counter)
    bytes = bytes + string.sub(counter, 3)
  end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for _ = 1, 1000 do -- at most so many, so that nobody waits long for Redis
    local oldest = redis.call('ZRANGE', key, 0, 0)[1]
    if not oldest or (bytes <= most_bytes and tonumber(string.sub(oldest, 1, 13)) > now) then
      break
    end
    redis.call('ZREM', key, oldest)
    bytes = bytes - overhead - #oldest
  end
  local newest = redis.call('ZRANGE', key, -1, -1)[1]
  if newest then
    redis.call('ZADD', key, 0, string.format('! %.0f', bytes))
    redis.call('PEXPIRE', key, string.format('%.0f', string.sub(newest, 1, 13) - now))
  end
end
