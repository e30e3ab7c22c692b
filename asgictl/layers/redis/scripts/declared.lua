-- What a script may touch: the keys that KEYS declares. Stands in front of the scripts that learn from sets which these are.
-- In a cluster whose slot migrates, any other key may live on the other node, and a script fails at it, half done. So a
-- script that needs more keys answers with their names before it changes anything, and is called again with them
-- (leases.py). For the same reason a script deletes a key after its last use.
local declared, undeclared = {}, {}
for _, key in ipairs(KEYS) do
  declared[key] = true
end

-- Whether a key may be touched; else it is among what the script answers with.
local function needs(key)
  if not declared[key] then
    table.insert(undeclared, key)
  end
  return declared[key]
end
