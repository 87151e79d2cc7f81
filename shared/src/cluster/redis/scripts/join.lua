-- KEYS: members holders meta tombstone queue news holds, and for what is asserted again tombstones of the node's earlier ids
-- ARGV: node user info topic ttl_ms members_max with_members stamp app wanted base is_news channel
-- Returns {status, epoch, sequence, members}; members is a flat list of id and info, empty unless asked for.
if redis.call('EXISTS', KEYS[4]) == 1 then return {-2, '0', '0', {}} end
check_presence(KEYS[1], KEYS[2], KEYS[3])
local hooks = hooks_of(ARGV[9], ARGV[10], ARGV[11], ARGV[12], unpack(KEYS, 5))
local node, user = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1]) ~= redis.call('EXISTS', KEYS[2]) then
  -- One without the other is the rest of a loss.
  redis.call('DEL', KEYS[1], KEYS[2])
  begin_epoch(KEYS[3], CHANGES)
  redis.call('HSET', KEYS[3], MEMBERS_FIELD, '0')
elseif redis.call('HLEN', KEYS[1]) < (tonumber(redis.call('HGET', KEYS[3], MEMBERS_FIELD) or '0') or 0) then
  -- Members were lost without an announcement: they expired when the clock jumped, or were evicted. A later epoch makes
  -- every node join again.
  begin_epoch(KEYS[3], CHANGES)
  redis.call('HSET', KEYS[3], MEMBERS_FIELD, redis.call('HLEN', KEYS[1]))
end
local known = redis.call('HEXISTS', KEYS[1], user) == 1
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then return {-1, '0', '0', {}} end
local epoch = epoch_of(KEYS[3], CHANGES)
local nodes = redis.call('HGET', KEYS[2], user) or ''
if not place_of(nodes, node) then redis.call('HSET', KEYS[2], user, nodes .. node) end
if not known then
  redis.call('HSET', KEYS[1], user, ARGV[3])
  announce_change(KEYS[1], KEYS[3], ARGV[4], 'A', ARGV[8], #user .. ':' .. user .. ARGV[3])
  began(hooks, 'A', 'R', ARGV[13], user)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
local members = {}
if ARGV[7] == '1' then members = redis.call('HGETALL', KEYS[1]) end
return {0, epoch, redis.call('HGET', KEYS[3], CHANGES.sequence) or '0', members}
