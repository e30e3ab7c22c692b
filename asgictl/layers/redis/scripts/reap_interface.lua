-- Clean up behind a dead interface, and emit the disconnect events of its connections: at most 200 a call.
-- KEYS  alive · channels · reply stream · turns · farewells, each `stream event`
-- ARGV  member · 1 when its death was seen, else its lease must have lapsed · wire field · prefix of inboxes
-- Returns how many connections are left, or -1 while the lease lives.
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[2] ~= '1' and lease > time[1] * 1000 + math.floor(time[2] / 1000) then
  return -1
end
redis.call('ZADD', KEYS[1], 0, ARGV[1]) -- FENCED, should it wake; and lapsed, so that the next beat calls again
if redis.call('DEL', KEYS[3]) == 1 then
  -- ASGI applications wait for what its connections do, and may say nothing from which they would learn of their end.
  local buried = cmsgpack.pack({'buried', string.match(ARGV[1], '/(.*)')})
  for _, worker in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if string.sub(worker, 1, 7) == 'worker/' then
      redis.call('XADD', ARGV[4] .. string.sub(worker, 8) .. '.asgi', 'NOMKSTREAM', '*', ARGV[3], buried)
    end
  end
end
local busy = {}
if redis.call('HLEN', KEYS[5]) > 0 then
  -- What a connection still has in a stream runs before its disconnect.
  for _, stream in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local count = string.find(stream, ':ch:background.', 1, true) and 0 or 20000 -- those have no connection
    for _, entry in ipairs(count > 0 and redis.call('XRANGE', stream, '-', '+', 'COUNT', count) or {}) do
      local ok, _, _, connection = pcall(cmsgpack.unpack_limit, entry[2][2], 2, 1) -- as in reap_worker.lua
      if ok and connection then
        busy[connection] = true
      end
    end
  end
end
local emitted, farewells = 0, redis.call('HGETALL', KEYS[5])
for i = 1, #farewells, 2 do
  if emitted < 200 and not busy[farewells[i]] then
    local stream, event = string.match(farewells[i + 1], '^(%S+) (.*)$')
    redis.call('XADD', stream, '*', ARGV[3], event)
    redis.call('HDEL', KEYS[5], farewells[i])
    emitted = emitted + 1
  end
end
local left = #farewells / 2 - emitted
if left == 0 then
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return left
