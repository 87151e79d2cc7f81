-- Releases the lease of a node and declares the node dead, so that a sweep removes the rest of its state.
--
--     KEYS[1] nodes             sorted set: leases
--     KEYS[2] dead              sorted set: dead nodes that are not swept yet
--     KEYS[3] tombstone         string: exists if the node was declared dead
--     ARGV[1] node              node id
--     ARGV[2] tombstone_ttl_ms  time to live of the tombstone, in milliseconds
--
-- Returns 1.
local nodes, dead, tombstone = KEYS[1], KEYS[2], KEYS[3]
local node, tombstone_ttl_ms = ARGV[1], ARGV[2]

redis.call('ZREM', nodes, node)
redis.call('ZADD', dead, redis.call('TIME')[1], node)
redis.call('SET', tombstone, '1', 'PX', tombstone_ttl_ms)
return 1
