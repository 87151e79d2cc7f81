-- Counts an app's connections on all nodes whose leases count.
--
--     KEYS[1] connections  hash: connections by node
--     KEYS[2] nodes        sorted set: leases
--     KEYS[3] lease_grace  string: exists while expired leases count
--
-- Returns the number of connections.
local connections, nodes, lease_grace = KEYS[1], KEYS[2], KEYS[3]

local is_counted, sum = counted_nodes(nodes, lease_grace), 0
local all = redis.call('HGETALL', connections)
for i = 1, #all, 2 do
  if is_counted(all[i]) then sum = sum + (tonumber(all[i + 1]) or 0) end
end
return sum
