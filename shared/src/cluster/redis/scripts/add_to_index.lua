-- KEYS: index
-- ARGV: ttl_ms, then entries
-- Notes what a node may hold, for a sweep.
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
