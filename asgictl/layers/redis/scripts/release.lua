-- Give back events that a live worker has in hand but has not started.
-- KEYS  streams of the events ...
-- ARGV  prefix of reply streams · wire field · dead letters · ids of the events, one for each stream ...
-- Returns how many it had in hand still.
local count = 0
for i, stream in ipairs(KEYS) do
  if lose(stream, ARGV[i + 3], ARGV[1], ARGV[2], ARGV[3], false) then
    count = count + 1
  end
end
return count
