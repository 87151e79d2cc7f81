-- KEYS: sessions
-- ARGV: address of the node, milliseconds, address of a node that is known to be gone or ''
-- The node has each session from here on, unless another has it; returns the address of who has it, for each.
local holders = {}
for index, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if not holder or holder == ARGV[1] or holder == ARGV[3] then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    holder = ARGV[1]
  end
  holders[index] = holder
end
return holders
