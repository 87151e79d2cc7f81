-- KEYS: lease holds news
-- ARGV: sender lease_ms base most
-- Takes or keeps the lease of a partition, and tells of what was held long enough. Returns {status, apps with news}; status
-- is 0 when another sender leads, 1 when this one does, and 2 when it does from now on.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return {0, {}} end
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
tell_due(ARGV[3], KEYS[3], KEYS[2], ARGV[4])
return {leader and 1 or 2, redis.call('SPOP', KEYS[3], ARGV[4])}
