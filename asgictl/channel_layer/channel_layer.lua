-- All that a Channels channel layer writes (channel_links.py), each in one step and, however often it is sent, once:
-- a sender numbers what it sends, and sends in order. Only a take may be done twice: what is too much is given back.
-- Touches only what KEYS declares, as layers/redis/scripts/declared.lua says why.
-- KEYS: last number of this sender; a stream; what is beside it, if anything; what else is touched
-- ARGV: what, number, expiry in milliseconds, capacity (0 for none), field, payload
local what, expiry, capacity, field, payload = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local last, stream, beside = KEYS[1], KEYS[2], KEYS[3]
local is_done = what ~= 'take' and tonumber(redis.call('GET', last) or 0) >= tonumber(ARGV[2])
if is_done and what ~= 'group' then return 1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function add(to, name, value)
  local id = redis.call('XADD', to, 'MINID', now - expiry, '*', name, value)
  redis.call('PEXPIRE', to, expiry)
  return id
end

local function share(to, groups, most, channel)  -- and tell all who may wait for it
  redis.call('XTRIM', to, 'MINID', now - expiry)
  if most > 0 and redis.call('XLEN', to) >= most then return 0 end
  add(to, 'm', payload)
  add(groups, '!' .. channel, '')
  return 1
end

local answer = 1
if what == 'group' then  -- beside: its members that are shared channels; those not declared are told, each time
  local declared, others, shared = {}, {}, redis.call('HGETALL', beside)
  for i = 4, #KEYS do declared[KEYS[i]] = true end
  if not is_done then answer = add(stream, field, payload) end
  for i = 1, #shared, 2 do
    local most, ends, channel = string.match(shared[i + 1], '(%d+) (%d+) (.*)')
    if tonumber(ends) <= now then redis.call('HDEL', beside, shared[i])
    elseif not declared[shared[i]] then table.insert(others, {shared[i], tonumber(most), channel})
    elseif not is_done then share(shared[i], stream, tonumber(most), channel) end
  end
  if #others > 0 then answer = {answer, others} end
  if is_done then return answer end
elseif what == 'local' then  -- beside: how many wait in each channel of the process
  if redis.call('HINCRBY', beside, field, 1) > capacity then
    redis.call('HINCRBY', beside, field, -1)
    return 0
  end
  redis.call('PEXPIRE', beside, expiry)
  add(stream, field, payload)
elseif what == 'shared' then  -- beside: the stream of groups
  if share(stream, beside, capacity, field) == 0 then return 0 end
elseif what == 'take' then  -- beside: the inbox of who takes
  redis.call('XTRIM', stream, 'MINID', now - expiry)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not first then return 0 end
  redis.call('XDEL', stream, first[1])
  add(beside, field, first[2][2])
  return 1
elseif what == 'direct' then
  add(stream, field, payload)
elseif what == 'join' then  -- the expiry is the membership's
  redis.call('HSET', beside, stream, capacity .. ' ' .. string.format('%.0f', now + expiry) .. ' ' .. field)
  redis.call('PEXPIRE', beside, expiry)
elseif what == 'leave' then
  redis.call('HDEL', beside, stream)
elseif what == 'flush' then  -- streams keep their last ids, by which processes know what they have read
  for i = 3, #KEYS do
    if redis.call('TYPE', KEYS[i])['ok'] == 'stream' then redis.call('XTRIM', KEYS[i], 'MAXLEN', 0)
    elseif KEYS[i] ~= last then redis.call('DEL', KEYS[i]) end
  end
  add(stream, field, payload)
end
redis.call('SET', last, ARGV[2], 'PX', 10000)
return answer
