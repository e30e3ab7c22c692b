-- Keep what a process says of itself for a time, or forget it.
-- KEYS  when each process was heard · this one's record
-- ARGV  its id · the record, '' to forget it · the milliseconds for which it is kept
if ARGV[2] == '' then
  redis.call('DEL', KEYS[2])
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[3]))
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
