-- KEYS: members references held meta tombstone
-- ARGV: user info topic ttl_ms members_max with_members stamp
-- Returns {status, epoch, sequence, members}; members is a flat list of id and info, empty unless asked for.
if redis.call('EXISTS', KEYS[5]) == 1 then return {-2, '0', '0', {}} end
check_presence(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
local user = ARGV[1]
local known = redis.call('HEXISTS', KEYS[1], user) == 1
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return {-1, '0', '0', {}} end
local epoch = epoch_of(KEYS[4], 'e')
if redis.call('SADD', KEYS[3], user) == 1 then redis.call('HINCRBY', KEYS[2], user, 1) end
if not known then
  redis.call('HSET', KEYS[1], user, ARGV[2])
  announce_change(KEYS[4], ARGV[3], 'A', ARGV[7], #user .. ':' .. user .. ARGV[2])
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
local members = {}
if ARGV[6] == '1' then members = redis.call('HGETALL', KEYS[1]) end
return {0, epoch, redis.call('HGET', KEYS[4], 's') or '0', members}
