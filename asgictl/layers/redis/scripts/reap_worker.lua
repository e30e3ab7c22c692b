-- Take every event from a dead worker's hands and tell its interface that it is lost.
-- KEYS  alive · channels
-- ARGV  member · 1 when its death was seen, else its lease must have lapsed · prefix of reply streams · of inboxes
--       · wire field · dead letters · '?' when it is not known which events had started, else the `stream entry` of those that had ...
-- Returns the number of events, or -1 while the lease lives.
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[2] ~= '1' and lease > time[1] * 1000 + math.floor(time[2] / 1000) then
  return -1
end
redis.call('ZREM', KEYS[1], ARGV[1])
local started, count = {}, 0
for i = 7, #ARGV do
  started[ARGV[i]] = true
end
local prefix = string.match(ARGV[1], '/(.*)') .. '.'
for _, stream in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', stream, 'workers')) do -- none where the cursor is not yet
    if string.sub(consumer[2], 1, #prefix) == prefix then
      local pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, consumer[2])
      while #pending > 0 do
        for _, held in ipairs(pending) do
          local had_started = started['?'] or started[stream .. ' ' .. held[1]] or false
          if lose(stream, held[1], ARGV[3], ARGV[5], ARGV[6], had_started) then
            count = count + 1
          end
        end
        pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, consumer[2])
      end
      redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', consumer[2])
      redis.call('DEL', ARGV[4] .. consumer[2])
    end
  end
end
-- Sockets of ASGI applications stay with their worker, and end with it.
redis.call('DEL', ARGV[4] .. prefix .. 'asgi')
local died = cmsgpack.pack({'died', string.sub(prefix, 1, -2)})
for _, interface in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(interface, 1, 10) == 'interface/' then
    redis.call('XADD', ARGV[3] .. string.sub(interface, 11), 'NOMKSTREAM', '*', ARGV[5], died)
  end
end
return count
