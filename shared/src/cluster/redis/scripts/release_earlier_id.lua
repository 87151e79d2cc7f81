-- Sets the lease of a node's earlier id to 0. Other nodes soon declare it dead and sweep it.
--
--     KEYS[1] nodes  sorted set: leases
--     ARGV[1] node   node id
--
-- Returns 1.
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
