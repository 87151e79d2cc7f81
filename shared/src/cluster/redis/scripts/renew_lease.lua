-- Renews the lease of a node.
--
--     KEYS[1] nodes        sorted set: leases
--     KEYS[2] dead         sorted set: dead nodes that are not swept yet
--     KEYS[3] tombstone    string: exists if the node was declared dead
--     KEYS[4] lease_grace  string: exists while expired leases count
--     ARGV[1] node         node id
--     ARGV[2] lease_ms     duration of the lease, in milliseconds
--
-- Returns 1. Returns 2 if there was no lease: the node is new, or Redis lost the lease. Returns 0 and changes nothing
-- if the node was declared dead.
local nodes, dead, tombstone, lease_grace = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, lease_ms = ARGV[1], ARGV[2]

local lease = redis.call('ZSCORE', nodes, node)
if not lease and (redis.call('EXISTS', tombstone) == 1 or redis.call('ZSCORE', dead, node)) then return 0 end
local now = now_ms()
-- If there are leases and none is valid, Redis was unavailable or its clock jumped. Running nodes renew within half a
-- lease.
local newest = newest_lease(nodes)
if newest > 0 and newest <= now then redis.call('SET', lease_grace, '1', 'PX', math.floor(lease_ms / 2)) end
local expiry = string.format('%.0f', now + lease_ms)
-- Other nodes watch the lease for changes. The value must change even if the clock was set back.
if lease == expiry then expiry = string.format('%.0f', expiry + 1) end
redis.call('ZADD', nodes, expiry, node)
return lease and 1 or 2
