-- How many bytes of Redis's memory a background channel's messages take, delayed ones included; and note that `added`
-- more are sent now. Stands in front of whatever asks or sends, so that all know the same.
-- MEMORY USAGE has to look at every node, for some 1 ms of 10,000 (of samples, 100 MiB have looked like 4): so once a
-- second, and what was sent since is added to it. note: the key that keeps second and bytes.
local function weigh(stream, delayed, note, added)
  local second = redis.call('TIME')[1]
  local at, bytes = string.match(tostring(redis.pcall('GET', note)), '^(%d+) (%d+)$')
  if at ~= second then
    bytes = 0
    for _, key in ipairs({stream, delayed}) do
      bytes = bytes + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0)
    end
  end
  if at ~= second or added > 0 then
    redis.call('SET', note, string.format('%s %.0f', second, bytes + added), 'PX', 2000)
  end
  return bytes + added
end
