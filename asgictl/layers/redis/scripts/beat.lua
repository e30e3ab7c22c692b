-- Renew a lease, and hear who has let their lease lapse and which channels may have delayed messages.
-- KEYS  alive · epoch · clock · grace · channels
-- ARGV  member ('' has none) · lease in milliseconds · the epoch that the member knows ('' at first) · a new epoch
-- Returns epoch · 1 when the member is FENCED, else 0 · the dead · streams of background channels
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = redis.call('GET', KEYS[2])
if not epoch then
  epoch = ARGV[4]
  redis.call('SET', KEYS[2], epoch)
end
-- When nobody has beaten for 3 s it was Redis, or all of us, that stood still: nobody is dead of that.
local clock = tonumber(redis.call('GET', KEYS[3]) or now)
if now - clock > 3000 or now < clock then
  redis.call('SET', KEYS[4], now + 15000)
end
redis.call('SET', KEYS[3], now)
if ARGV[1] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if ARGV[3] == epoch and (not lease or tonumber(lease) == 0) then
    return {epoch, 1, {}, {}}
  end
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
local background, dead = {}, {}
-- pcall: whatever is wrong with the channels, the lease matters more.
for _, stream in ipairs(redis.pcall('SMEMBERS', KEYS[5])) do
  if string.find(stream, ':ch:background.', 1, true) then
    table.insert(background, stream)
  end
end
if now >= tonumber(redis.call('GET', KEYS[4]) or 0) then
  dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 16)
end
return {epoch, 0, dead, background}
