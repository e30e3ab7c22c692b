-- Take every pending event from a dead worker and tell its interface that it is lost.
-- KEYS  alive · channels · dead letters · own channels · streams of channels, reply streams of interfaces, inboxes of the
--       worker ...
-- ARGV  member · 1 when its death was seen, else its lease must have lapsed · prefix of reply streams · of inboxes
--       · wire field · '?' when it is not known which events had started, else the `stream entry` of those that had ...
-- Returns the number of events, -1 while the lease lives, or, having done nothing, the names of keys to declare too.
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[2] ~= '1' and lease > time[1] * 1000 + math.floor(time[2] / 1000) then
  return -1
end
local prefix = string.match(ARGV[1], '/(.*)') .. '.'
-- Sockets of ASGI applications stay with their worker, and end with it.
local channels = string.sub(KEYS[1], 1, -#'alive' - 1) .. 'ch:' -- what their streams begin with
local consumers, interfaces, inboxes = {}, {}, {[ARGV[4] .. prefix .. 'asgi'] = true}
local streams, own, home = redis.call('SMEMBERS', KEYS[2]), {}, '@' .. prefix .. 'asgi'
for _, stream in ipairs(redis.pcall('ZRANGE', KEYS[4], 0, -1)) do
  if string.sub(stream, 1, #channels) == channels and string.sub(stream, -#home) == home then
    table.insert(streams, stream)
    table.insert(own, stream)
  end
end
for _, stream in ipairs(streams) do
  if string.sub(stream, 1, #channels) == channels and needs(stream) then
    for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', stream, 'workers')) do -- none where the cursor is not yet
      if string.sub(consumer[2], 1, #prefix) == prefix then
        table.insert(consumers, {stream, consumer[2]})
        inboxes[ARGV[4] .. consumer[2]] = true
      end
    end
  end
end
-- An interface holds a lease as long as it has a reply stream.
for _, interface in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(interface, 1, 10) == 'interface/' then
    local replies = ARGV[3] .. string.sub(interface, 11)
    needs(replies)
    table.insert(interfaces, replies)
  end
end
for inbox in pairs(inboxes) do
  needs(inbox)
end
if #undeclared > 0 then
  return undeclared
end
redis.call('ZREM', KEYS[1], ARGV[1])
local started, count = {}, 0
for i = 6, #ARGV do
  started[ARGV[i]] = true
end
for _, consumer in ipairs(consumers) do
  local stream, name = consumer[1], consumer[2]
  local pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, name)
  while #pending > 0 do
    for _, held in ipairs(pending) do
      local had_started = started['?'] or started[stream .. ' ' .. held[1]] or false
      if lose(stream, held[1], ARGV[3], ARGV[5], KEYS[3], had_started) then
        count = count + 1
      end
    end
    pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, name)
  end
  redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', name)
end
-- What it alone was to have, and had not taken.
for _, stream in ipairs(own) do
  local left
  repeat
    local read = redis.pcall('XREADGROUP', 'GROUP', 'workers', prefix .. 'own', 'COUNT', 1000, 'STREAMS', stream, '>')
    left = read and read[1] and read[1][2] or {}
    for _, entry in ipairs(left) do
      if lose(stream, entry[1], ARGV[3], ARGV[5], KEYS[3], false) then
        count = count + 1
      end
    end
  until #left == 0
  redis.call('DEL', stream)
  redis.call('ZREM', KEYS[4], stream)
end
local died = cmsgpack.pack({'died', string.sub(prefix, 1, -2)})
for _, replies in ipairs(interfaces) do
  redis.pcall('XADD', replies, 'NOMKSTREAM', '*', ARGV[5], died)
end
for inbox in pairs(inboxes) do
  redis.call('DEL', inbox)
end
return count
