-- KEYS: occupancy occupied tombstone queue news holds, and for what is asserted again the tombstone of the node's earlier id
-- ARGV: node count topic name ttl_ms announce is_user stamp app wanted
-- Returns 0, or -2 to a node that has been swept.
if redis.call('EXISTS', KEYS[3]) == 1 then return -2 end
local before = total(KEYS[1])
-- Fails before anything has changed when the set is none.
redis.call('SCARD', KEYS[2])
local hooks = hooks_of(ARGV[9], wanted_of(ARGV[10], KEYS[7]), KEYS[4], KEYS[5], KEYS[6])
local announce = ARGV[6] == '1'
if announce then redis.call('HSET', KEYS[1], '#', '1') end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
count_changed(hooks, KEYS[1], KEYS[2], ARGV[3], ARGV[4], ARGV[8], ARGV[7] == '1', announce, before, total(KEYS[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 0
