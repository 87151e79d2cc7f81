-- Leases of nodes. They are scores of the sorted set `nodes`: the expiry in milliseconds since 1970.

-- Returns the latest expiry of all leases, or 0 if there are none.
local function newest_lease(nodes)
  return tonumber(redis.call('ZRANGE', nodes, -1, -1, 'WITHSCORES')[2] or 0)
end

-- Returns a function that returns whether the connections of a node count. They count while its lease is valid. While
-- no lease is valid, and while the key lease_grace exists, expired leases count too: running nodes have not had the
-- time to renew them.
local function counted_nodes(nodes, lease_grace)
  local now = now_ms()
  local is_grace_period = newest_lease(nodes) <= now or redis.call('EXISTS', lease_grace) == 1
  return function(node)
    local lease = tonumber(redis.call('ZSCORE', nodes, node) or 0)
    return lease > (is_grace_period and 0 or now)
  end
end
