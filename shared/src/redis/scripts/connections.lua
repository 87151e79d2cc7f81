-- KEYS: connections nodes
-- Returns an app's connections on all nodes with a valid lease.
local now, sum = now_ms(), 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local lease = redis.call('ZSCORE', KEYS[2], all[i])
  if lease and tonumber(lease) > now then sum = sum + (tonumber(all[i + 1]) or 0) end
end
return sum
