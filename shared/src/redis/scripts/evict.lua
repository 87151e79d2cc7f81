-- KEYS: members references held meta occupancy occupied tombstone
-- ARGV: node topic name batch tombstone_ttl_ms is_user stamp
-- Returns {members removed, users of the node that are left}.
check_presence(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
local before = total(KEYS[5])
redis.call('SCARD', KEYS[6])
redis.call('SET', KEYS[7], '1', 'PX', ARGV[5])
local removed = 0
for _, user in ipairs(redis.call('SPOP', KEYS[3], ARGV[4])) do
  removed = removed + drop_user(KEYS[1], KEYS[2], KEYS[4], ARGV[2], ARGV[7], user)
end
local left = redis.call('SCARD', KEYS[3])
if left == 0 then
  local announce = redis.call('HEXISTS', KEYS[5], '#') == 1
  if redis.call('HDEL', KEYS[5], ARGV[1]) == 1 then
    count_changed(KEYS[5], KEYS[6], ARGV[2], ARGV[3], ARGV[7], ARGV[6] == '1', announce, before, total(KEYS[5]))
  end
end
return {removed, left}
