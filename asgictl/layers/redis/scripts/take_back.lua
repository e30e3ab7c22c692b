-- What reap_worker.lua and release.lua share; stands in front of each, behind declared.lua;
-- in front of reap_worker.lua dead_letter.lua stands too.
-- Take a pending event from a worker and tell its interface that it is lost; false when it was not in any.
-- An event is an array of at most 15, so one byte long in its head. Redis's MessagePack knows no binary, of which the
-- fields behind the first are full.
-- dead: the stream of dead letters; nil adds a job again, whatever its workers have died of.
local function lose(stream, id, replies, field, dead, started)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if redis.call('XACK', stream, 'workers', id) == 0 then
    return false
  end
  redis.call('XDEL', stream, id)
  local ok, at, kind, connection, number = pcall(cmsgpack.unpack_limit, entry and entry[2][2] or '', 3, 1)
  if not ok or type(connection) ~= 'string' then
    return false
  end
  local attempt
  if kind == 'request' or kind == 'job' then
    number, attempt = 0, number
  else
    ok, at, attempt = pcall(cmsgpack.unpack_limit, entry[2][2], 1, at)
    if not ok then
      return false
    end
  end
  local lost = cmsgpack.pack({'lost', connection, number, attempt, started})
  local interface = replies .. string.match(connection, '[^/]*')
  local told = declared[interface] and type(redis.pcall('XADD', interface, 'NOMKSTREAM', '*', field, lost)) == 'string'
  local retries = (tonumber(entry[2][4] or 0) or 0) + (started and 1 or 0)
  if not told and (kind == 'disconnect' or kind == 'job') then
    -- No interface sends a job again, nor a dead one this last event of its connections: it is ours to add.
    if retries < 3 or not dead then
      redis.call('XADD', stream, '*', entry[2][1], entry[2][2], 'retries', retries)
    elseif kind == 'job' then
      -- A job has no headers: nothing of it is to be masked.
      dead_letter(dead, entry[2][1], entry[2][2], string.match(stream, '}:ch:(.*)'), retries .. ' workers died of it')
    end
  end
  return true
end
