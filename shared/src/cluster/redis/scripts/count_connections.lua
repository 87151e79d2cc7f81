-- KEYS: connections nodes quiet
-- Returns an app's connections on all nodes with a valid lease.
local is_counted, sum = counted_nodes(KEYS[2], KEYS[3]), 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if is_counted(all[i]) then sum = sum + (tonumber(all[i + 1]) or 0) end
end
return sum
