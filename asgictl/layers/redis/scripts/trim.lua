-- Forget broadcasts that are older than ARGV[1] milliseconds and, from the oldest on, what is past ARGV[2] bytes; by
-- Redis's clock, which their ids are made of. KEYS: broadcasts; the newest that was forgotten, so that readers know.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(oldest)
  oldest = string.format('%.0f', oldest)
  local last = redis.call('XREVRANGE', KEYS[1], '(' .. oldest, '-', 'COUNT', 1)[1]
  if last then
    redis.call('SET', KEYS[2], last[1])
    redis.call('XTRIM', KEYS[1], 'MINID', oldest)
  end
end

forget(now - ARGV[1])
for _ = 1, 20 do  -- as if in each millisecond as much had come; so more than once
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  local bytes = first and redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
  if bytes <= tonumber(ARGV[2]) then return end
  local since = tonumber(string.match(first[1], '%d+'))
  local last = tonumber(string.match(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1], '%d+'))
  forget(math.max(since + 1, last - math.floor((last - since) * ARGV[2] / bytes)))
end
