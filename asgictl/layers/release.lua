-- Take every event from a dead worker's hands and tell its interface that it is lost.
-- KEYS  alive · channels
-- ARGV  member · 1 when its death was seen, else its lease must have lapsed · prefix of reply streams · wire field
--       · '?' when it is not known which events had started, else the `stream entry` of those that had ...
-- Returns the number of events, or -1 while the lease lives.
local time = redis.call('TIME')
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if ARGV[2] ~= '1' and lease > time[1] * 1000 + math.floor(time[2] / 1000) then
  return -1
end
redis.call('ZREM', KEYS[1], ARGV[1])
local started, count = {}, 0
for i = 5, #ARGV do
  started[ARGV[i]] = true
end
local prefix = string.match(ARGV[1], '/(.*)') .. '.'
for _, stream in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', stream, 'workers')) do -- none where the cursor is not yet
    if string.sub(consumer[2], 1, #prefix) == prefix then
      local pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, consumer[2])
      while #pending > 0 do
        for _, held in ipairs(pending) do
          local entry = redis.call('XRANGE', stream, held[1], held[1])[1]
          redis.call('XACK', stream, 'workers', held[1])
          redis.call('XDEL', stream, held[1])
          -- An event is an array of at most 15, so one byte long in its head. Redis's MessagePack knows no binary,
          -- of which the fields behind these are full.
          local ok, at, kind, connection, number = pcall(cmsgpack.unpack_limit, entry and entry[2][2] or '', 3, 1)
          if ok and connection then
            local attempt
            if kind == 'request' then
              number, attempt = 0, number
            else
              at, attempt = cmsgpack.unpack_limit(entry[2][2], 1, at)
            end
            local lost = {'lost', connection, number, attempt, started['?'] or started[stream .. ' ' .. held[1]] or false}
            local interface = string.match(connection, '[^/]*')
            local told = redis.call('XADD', ARGV[3] .. interface, 'NOMKSTREAM', '*', ARGV[4], cmsgpack.pack(lost))
            local retries = tonumber(entry[2][4] or 0)
            if not told and kind == 'disconnect' and retries < 2 then
              -- A dead interface sends nothing again: this last event of its connections is ours to add.
              redis.call('XADD', stream, '*', entry[2][1], entry[2][2], 'retries', retries + (lost[5] and 1 or 0))
            end
            count = count + 1
          end
        end
        pending = redis.call('XPENDING', stream, 'workers', '-', '+', 1000, consumer[2])
      end
      redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', consumer[2])
    end
  end
end
return count
