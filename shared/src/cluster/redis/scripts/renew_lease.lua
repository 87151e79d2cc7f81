-- KEYS: nodes dead tombstone quiet
-- ARGV: node lease_ms
-- Renews the lease of a node. Returns 1; or 2 when the lease was missing and has been started, as of a new node, or after
-- Redis lost it; or 0 to a node that was declared dead.
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease and (redis.call('EXISTS', KEYS[3]) == 1 or redis.call('ZSCORE', KEYS[2], ARGV[1])) then return 0 end
local now = now_ms()
-- If there are leases and none is valid, Redis was away or its clock jumped. Living nodes renew within half a lease.
local newest = newest_lease(KEYS[1])
if newest > 0 and newest <= now then redis.call('SET', KEYS[4], '1', 'PX', math.floor(ARGV[2] / 2)) end
local expires = string.format('%.0f', now + ARGV[2])
-- Every renewal must show as another value, also while the clock is set back: other nodes watch for changes.
if lease == expires then expires = string.format('%.0f', expires + 1) end
redis.call('ZADD', KEYS[1], expires, ARGV[1])
return lease and 1 or 2
