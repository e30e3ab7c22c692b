-- Emit the disconnect events of some connections of an identity that lives: of those that its last process held, and
-- its present one does not.
-- KEYS  channels · turns · last_wills, each `stream event` · streams of channels ...
-- ARGV  wire field · prefix of channels' streams · connection ...
-- Returns how many connections are left, as they still have an event in a stream; or, having done nothing, the names of
-- keys to declare too.
local busy, left, emitted = busy_connections(KEYS[1], ARGV[2]), 0, {}
for at = 3, #ARGV do
  if busy[ARGV[at]] then
    left = left + 1
  else
    local stream, event = string.match(redis.call('HGET', KEYS[3], ARGV[at]) or '', '^(%S+) (.*)$')
    if stream and string.sub(stream, 1, #ARGV[2]) == ARGV[2] and needs(stream) then
      table.insert(emitted, {stream, event})
    end
  end
end
if #undeclared > 0 then
  return undeclared
end
for _, last_will in ipairs(emitted) do
  redis.pcall('XADD', last_will[1], '*', ARGV[1], last_will[2])
end
for at = 3, #ARGV do
  if not busy[ARGV[at]] then
    redis.call('HDEL', KEYS[3], ARGV[at])
    redis.call('HDEL', KEYS[2], ARGV[at])
  end
end
return left
