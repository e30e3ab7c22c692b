-- What sends; stands in front of commit.lua, and of what sends outside of a commit (sends.py).
-- Add to a stream, at once or by Redis's clock: what waits is moved by whoever beats first after its time (beat.lua).
local function send(stream, delay, field, value)
  if tonumber(delay) == 0 then
    redis.call('XADD', stream, '*', field, value)
  else
    local time = redis.call('TIME')
    local due = time[1] * 1000 + math.ceil(time[2] / 1000) + delay
    redis.call('ZADD', stream .. ':delayed', due, field .. ' ' .. value)
  end
end
