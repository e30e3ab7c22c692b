-- Commit one event: everything that it produced leaves together, once, or nothing does. send.lua stands in front.
-- KEYS  channel stream · reply stream of the interface · its turns · broadcast stream · its farewells
--       · where each that is sent goes: a stream, or with a delay the zset beside it ...
-- ARGV  entry · connection · turn ('' for HTTP) · disconnect? · joins? · farewell · wire field
--       · reply ('' for a job, which has nobody to reply to) · of each that is sent delay in milliseconds, value ...
-- Returns 1, or why it was refused: -1 the interface is gone, -2 the turn is not newer, -3 the entry is gone.
-- XACK comes first: it decides, and it succeeds when Redis is full.
if redis.call('XACK', KEYS[1], 'workers', ARGV[1]) == 0 then
  return -3
end
redis.call('XDEL', KEYS[1], ARGV[1])
local turn, disconnect = tonumber(ARGV[3]), ARGV[4] == '1'
if turn and turn <= tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or 0) then
  return -2
end
local entry = {ARGV[7], ARGV[8]}
if ARGV[5] == '1' then
  -- From here on the joiner receives: what stands in the broadcast stream already is not for it.
  local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
  entry[3], entry[4] = 'position', last and last[1] or '0-0'
end
-- The disconnect of a killed interface's connection has nobody to reply to, but is to be heard by others.
if ARGV[8] ~= '' and not redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(entry)) and not disconnect then
  return -1
end
if disconnect then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('HDEL', KEYS[5], ARGV[2])
elseif turn then
  redis.call('HSET', KEYS[3], ARGV[2], turn)
  if ARGV[6] ~= '' then
    redis.call('HSET', KEYS[5], ARGV[2], ARGV[6])
  end
end
for i = 6, #KEYS do
  send(KEYS[i], ARGV[2 * i - 3], ARGV[7], ARGV[2 * i - 2])
end
return 1
