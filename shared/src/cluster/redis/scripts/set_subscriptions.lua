-- KEYS: occupancy occupied tombstone queue news holds, and for what is asserted again tombstones of the node's earlier ids
-- ARGV: node count topic name ttl_ms announce is_user stamp app wanted base is_news
-- Returns 0, or -2 to a node that has been swept.
if redis.call('EXISTS', KEYS[3]) == 1 then return -2 end
local before = total(KEYS[1])
-- Fails before anything has changed when the set is none.
redis.call('SCARD', KEYS[2])
local hooks = hooks_of(ARGV[9], ARGV[10], ARGV[11], ARGV[12], unpack(KEYS, 4))
local announce = ARGV[6] == '1'
if ARGV[2] == '0' and ARGV[12] == '0' and redis.call('HEXISTS', KEYS[1], '#') == 1 then
  -- A node that has left the channel already does not know whether its counts are announced.
  announce = true
end
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
