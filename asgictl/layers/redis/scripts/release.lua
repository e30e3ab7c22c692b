-- Release events that a live worker has prefetched but not started.
-- KEYS  streams of the events, one for each ... · reply streams of their interfaces ...
-- ARGV  prefix of reply streams · wire field · ids of the events ...
-- Returns how many were pending for it still.
local count = 0
for i = 3, #ARGV do
  if lose(KEYS[i - 2], ARGV[i], ARGV[1], ARGV[2], nil, false) then
    count = count + 1
  end
end
return count
