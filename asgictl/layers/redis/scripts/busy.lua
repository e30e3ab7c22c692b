-- The connections that still have an event in a stream, which runs before their disconnect. Stands behind declared.lua.
-- pcall: whatever stands where something of ours is to be, the rest is seen to.
local function busy_connections(channels, prefix)
  local busy = {}
  for _, stream in ipairs(redis.call('SMEMBERS', channels)) do
    local channel = string.sub(stream, 1, #prefix) == prefix and string.sub(stream, #prefix + 1) or 'background.'
    local has_connections = string.sub(channel, 1, 11) ~= 'background.'
    for _, entry in ipairs(has_connections and needs(stream) and redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 20000) or {}) do
      local ok, _, _, connection = pcall(cmsgpack.unpack_limit, entry[2][2], 2, 1) -- as in take_back.lua
      if ok and type(connection) == 'string' then
        busy[connection] = true
      end
    end
  end
  return busy
end

