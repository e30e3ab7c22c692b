-- Keep an event that was given up: at most `most` letters, and `most_bytes` of Redis's memory; the oldest go.
-- Stands in front of whatever writes a dead letter; dead_letters.py puts the bounds in front of it.
-- dead: the stream. Returns the letter's id, or the error that Redis refused it with: a caller has more to do than this.
local function dead_letter(dead, field, event, channel, reason)
  if #event > most_bytes then
    reason = string.format('%s; of its %.0f bytes the first %.0f are kept', reason, #event, head_bytes)
    event = string.sub(event, 1, head_bytes)
  end
  local id = redis.pcall('XADD', dead, 'MAXLEN', '~', most, '*', field, event, 'channel', channel, 'reason', reason)
  if type(id) ~= 'string' then
    return id
  end
  -- Every node is looked at: of samples from the oldest on, 100 MiB have looked like 4.
  local over = (tonumber(redis.pcall('MEMORY', 'USAGE', dead, 'SAMPLES', 0)) or 0) - most_bytes
  local read = 0 -- at most so many bytes of old letters, so that nobody waits long for Redis
  while over > 0 and read < most_bytes do
    local oldest = redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)[1]
    if oldest[1] == id then
      break
    end
    for _, each in ipairs(oldest[2]) do
      over, read = over - #each, read + #each
    end
    redis.call('XDEL', dead, oldest[1])
  end
  return id
end
