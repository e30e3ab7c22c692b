-- Move the delayed messages whose time has come to their channels' streams.
-- KEYS  of each channel its stream and the zset beside it ...
-- Returns how many members were no messages, and were removed: they would hold up those behind them.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Rounded down here and up in send.lua, so that none is early. At most so many, so that nobody waits long for Redis.
local most, removed = 2000, 0
for i = 1, #KEYS, 2 do
  -- pcall: what is wrong with one channel leaves the others alone.
  for _, due in ipairs(redis.pcall('ZRANGEBYSCORE', KEYS[i + 1], '-inf', now, 'LIMIT', 0, most)) do
    local field, value = string.match(due, '^(%d+) (.*)$')
    if not field then
      redis.call('ZREM', KEYS[i + 1], due)
      removed = removed + 1
    elseif type(redis.pcall('XADD', KEYS[i], '*', field, value)) == 'string' then
      redis.call('ZREM', KEYS[i + 1], due)
    end
    most = most - 1
  end
end
return removed
