-- Commit one event: everything that it produced leaves together, once, or nothing does. send.lua stands in front.
-- KEYS  channel stream · reply stream of the interface, unless it is a job · of a turn its turns · its last_wills, of one
--       that changes them · broadcast stream, of one that joins
--       · where each that is sent goes: a stream, or with a delay the zset beside it ...
-- ARGV  entry · connection · turn ('' for HTTP) · '1' for a disconnect, else '' · last_will · wire field
--       · reply ('' for a job, which has nobody to reply to) · of each that is sent delay in milliseconds, value ...
-- Returns 1, or why it was refused: -1 the interface is gone, -2 the turn is not newer, -3 the entry is gone.
-- XACK comes first: it decides, and it succeeds when Redis is full.
if redis.call('XACK', KEYS[1], 'workers', ARGV[1]) == 0 then
  return -3
end
redis.call('XDEL', KEYS[1], ARGV[1])
local own = #KEYS - (#ARGV - 7) / 2
local turn, disconnect = tonumber(ARGV[3]), ARGV[4] == '1'
if turn and turn <= tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or 0) then
  return -2
end
local entry = {ARGV[6], ARGV[7]}
if own == 5 then
  -- From here on the joiner receives: what stands in the broadcast stream already is not for it.
  local last = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
  entry[3], entry[4] = 'position', last and last[1] or '0-0'
end
-- The disconnect of a killed interface's connection has nobody to reply to, but is to be heard by others.
if ARGV[7] ~= '' and not redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(entry)) and not disconnect then
  return -1
end
if disconnect then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('HDEL', KEYS[4], ARGV[2])
elseif turn then
  redis.call('HSET', KEYS[3], ARGV[2], turn)
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[4], ARGV[2], ARGV[5])
  end
end
for i = own + 1, #KEYS do
  local at = 8 + 2 * (i - own - 1)
  send(KEYS[i], ARGV[at], ARGV[6], ARGV[at + 1])
end
return 1
