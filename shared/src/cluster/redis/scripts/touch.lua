-- KEYS: occupancy occupied meta members holders; the last two for presence channels only
-- ARGV: node name ttl_ms
-- Gives a channel its full time to live, and names it among the occupied ones. Returns 0 when something that the node had
-- put there is gone, else 1.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], META_TTL_MS) end
if not KEYS[4] then return 1 end
return redis.call('PEXPIRE', KEYS[4], ARGV[3]) * redis.call('PEXPIRE', KEYS[5], ARGV[3])
