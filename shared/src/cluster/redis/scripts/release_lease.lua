-- KEYS: nodes dead tombstone
-- ARGV: node tombstone_ms
-- A node gives up its lease. What is left of it is to be swept.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[1])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
return 1
