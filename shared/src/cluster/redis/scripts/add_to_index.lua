-- Adds entries to the index of what a node may have. A sweep reads the index.
--
--     KEYS[1]   index    set: what the node may have
--     ARGV[1]   ttl_ms   time to live of the index, in milliseconds
--     ARGV[2..] entries  entries of the index
--
-- Returns 1.
local index, ttl_ms = KEYS[1], ARGV[1]

redis.call('SADD', index, unpack(ARGV, 2))
redis.call('PEXPIRE', index, ttl_ms)
return 1
