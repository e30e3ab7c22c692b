-- Clean up behind a dead interface, and emit the disconnect events of its connections: at most 200 a call.
-- KEYS  alive · channels · reply stream · turns · last_wills, each `stream event` · streams of channels, inboxes of workers ...
-- ARGV  member · 1 when its death was seen, else its lease must have lapsed · wire field · prefix of inboxes
-- Returns how many connections are left, -1 while the lease lives, or, having done nothing, the names of keys to
-- declare too.
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[2] ~= '1' and lease > time[1] * 1000 + math.floor(time[2] / 1000) then
  return -1
end
local inboxes, left, emitted = {}, 0, {}
local prefix = string.sub(KEYS[1], 1, -#'alive' - 1) .. 'ch:' -- of channels' streams
-- ASGI applications wait for what its connections do, and may say nothing from which they would learn of their end.
for _, worker in ipairs(redis.call('EXISTS', KEYS[3]) == 1 and redis.call('ZRANGE', KEYS[1], 0, -1) or {}) do
  if string.sub(worker, 1, 7) == 'worker/' then
    local inbox = ARGV[4] .. string.sub(worker, 8) .. '.asgi'
    needs(inbox)
    table.insert(inboxes, inbox)
  end
end
-- pcall, here and below: whatever stands where something of ours is to be, the rest is seen to.
local last_wills = redis.pcall('HGETALL', KEYS[5])
local busy = #last_wills > 0 and busy_connections(KEYS[2], prefix) or {}
for i = 1, #last_wills, 2 do
  if #emitted < 200 and not busy[last_wills[i]] then
    local stream, event = string.match(last_wills[i + 1], '^(%S+) (.*)$')
    if stream and string.sub(stream, 1, #prefix) == prefix then
      needs(stream)
    else
      stream = nil -- it is none of ours: nobody runs it
    end
    table.insert(emitted, {last_wills[i], stream, event})
  else
    left = left + 1
  end
end
if #undeclared > 0 then
  return undeclared
end
redis.call('ZADD', KEYS[1], 0, ARGV[1]) -- FENCED, should it wake; and lapsed, so that the next beat calls again
local died = cmsgpack.pack({'interface_died', string.match(ARGV[1], '/(.*)')})
for _, inbox in ipairs(inboxes) do
  redis.pcall('XADD', inbox, 'NOMKSTREAM', '*', ARGV[3], died)
end
for _, last_will in ipairs(emitted) do
  if last_will[2] then
    redis.pcall('XADD', last_will[2], '*', ARGV[3], last_will[3])
  end
  redis.call('HDEL', KEYS[5], last_will[1])
end
redis.call('DEL', KEYS[3])
if left == 0 then
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return left
