-- What sends; stands behind keep.lua, in front of commit.lua, and of what sends outside of a commit (send_commands.py).
-- Add to a stream, at once; or, with a delay, to the zset beside it, by Redis's clock: what waits is moved by whoever
-- beats first after its time (move_due.lua). A delay below 0 stands for a job's record, which is kept.
local function send(key, delay, field, value)
  if tonumber(delay) == 0 then
    redis.call('XADD', key, '*', field, value)
  elseif tonumber(delay) < 0 then
    keep(key, value)
  else
    local time = redis.call('TIME')
    local due = time[1] * 1000 + math.ceil(time[2] / 1000) + delay
    redis.call('ZADD', key, due, field .. ' ' .. value)
  end
end
