-- Renew a lease, and hear who has let their lease lapse and which channels may have delayed messages.
-- KEYS  alive · epoch · clock · grace · channels · manifest · own channels · more that are to be of their type; streams
--       of channels among them are made known, and the member's own created ...
-- ARGV  member ('' has none) · lease in milliseconds · the epoch that the member knows ('' at first) · a new epoch
--       · of each key its type ... · the manifest of the member's release, '' of an interface
-- Returns epoch · 1 when the member is FENCED, else 0 · the dead · streams of background channels
--       · the names of what was none of ours and was removed: a beat that failed at it would fail for ever.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed, was_other = {}, {}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[4 + i] then
    redis.call('DEL', key)
    table.insert(removed, key)
    was_other[i] = true
  end
end
local epoch = redis.call('GET', KEYS[2])
if not epoch or epoch == '' then
  -- Where only the epoch is none, nothing else was forgotten.
  epoch = (epoch or was_other[2]) and ARGV[3] ~= '' and ARGV[3] or ARGV[4]
  redis.call('SET', KEYS[2], epoch)
end
-- When nobody has beaten for 3 s it was Redis, or all of us, that stood still: nobody is dead of that.
local clock = tonumber(redis.call('GET', KEYS[3])) or now
if now - clock > 3000 or now < clock then
  redis.call('SET', KEYS[4], now + 15000)
end
redis.call('SET', KEYS[3], string.format('%.0f', now))
-- When the leases were removed, this member is there until all have theirs again.
local again = 'again'
if was_other[1] then
  redis.call('ZADD', KEYS[1], now + 15000, again)
end
if ARGV[1] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  local taken = lease and tonumber(lease) == 0 or not lease and not redis.call('ZSCORE', KEYS[1], again)
  if ARGV[3] == epoch and taken then
    return {epoch, 1, {}, {}, removed}
  end
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
local manifest = ARGV[#ARGV]
if manifest ~= '' and not redis.call('SET', KEYS[6], manifest, 'NX', 'PX', ARGV[2])
  and (redis.call('GET', KEYS[6]) == manifest or redis.call('PTTL', KEYS[6]) == -1) then -- one without a lease is no worker's
  redis.call('PEXPIRE', KEYS[6], ARGV[2])
end
local background, dead = {}, {}
local prefix = string.sub(KEYS[5], 1, -#'channels' - 1) .. 'ch:'
for i, key in ipairs(KEYS) do
  if ARGV[4 + i] == 'stream' and string.sub(key, 1, #prefix) == prefix then
    if string.find(key, '@', #prefix + 1, true) then
      redis.pcall('XGROUP', 'CREATE', key, 'workers', '0', 'MKSTREAM') -- refused where there is one
      redis.call('ZADD', KEYS[7], 1, key)
    else
      redis.call('SADD', KEYS[5], key)
    end
  end
end
for _, stream in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do
  local worker = string.sub(stream, 1, #prefix) == prefix and string.match(stream, '@([!-~]+)%.asgi$')
  if not worker then
    table.insert(removed, stream)
  end
  if not (worker and redis.call('ZSCORE', KEYS[1], 'worker/' .. worker)) then
    redis.call('ZREM', KEYS[7], stream)
  end
end
for _, stream in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  if string.sub(stream, 1, #prefix) ~= prefix or not string.find(stream, '^[!-~]+$') then
    redis.call('SREM', KEYS[5], stream)
    table.insert(removed, stream)
  elseif string.find(stream, 'background.', #prefix + 1, true) == #prefix + 1 then
    table.insert(background, stream)
  end
end
local grace = tonumber(redis.call('GET', KEYS[4])) or 0
if now >= grace or grace > now + 15000 then -- nobody grants more
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)) do
    if not (string.find(name, '^worker/[!-.0-~]+$') or string.find(name, '^interface/[!-.0-~]+$')) then
      redis.call('ZREM', KEYS[1], name)
      if name ~= again then
        table.insert(removed, name)
      end
    elseif #dead < 16 then
      table.insert(dead, name)
    end
  end
  -- What a worker had sent before its link was cut may come after its reaper, and take events for nobody. Who has read
  -- within 5 s may only have yet to beat, as when Redis forgets everything.
  for i, key in ipairs(time[1] % 5 == 0 and KEYS or {}) do
    if ARGV[4 + i] == 'stream' and string.sub(key, 1, #prefix) == prefix then
      for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', key, 'workers')) do
        local worker = 'worker/' .. (string.match(consumer[2], '^([!-.0-~]+)%.%w+$') or '')
        local is_left = consumer[4] > 0 and consumer[6] > 5000 and not redis.call('ZSCORE', KEYS[1], worker)
        if is_left and #worker > 7 and #dead < 16 then
          table.insert(dead, worker)
        end
      end
    end
  end
end
return {epoch, 0, dead, background, removed}
