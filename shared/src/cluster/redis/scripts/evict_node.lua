-- KEYS: members holders meta occupancy occupied tombstone queue news holds
-- ARGV: node topic name batch tombstone_ttl_ms is_user stamp app wanted base is_news
-- Returns {members removed, whether users of the node may be left, whether a key was damaged}. A key that holds something
-- else is skipped, and what depends on it: the rest of the node must go all the same.
local wanted = ARGV[9]
local has_presence = is_good('HLEN', KEYS[1]) and is_good('HLEN', KEYS[2]) and is_good('HLEN', KEYS[3])
local has_occupancy = is_good('HLEN', KEYS[4]) and is_good('SCARD', KEYS[5])
local has_hooks = is_good('XLEN', KEYS[7]) and is_good('SCARD', KEYS[8]) and is_good('ZCARD', KEYS[9])
local is_damaged = not (has_presence and has_occupancy and (has_hooks or wanted == '')) and 1 or 0
if not has_hooks then wanted = '' end
local hooks = hooks_of(ARGV[8], wanted, ARGV[10], ARGV[11], unpack(KEYS, 7))
-- '1' once the node has lost something here that it had: its return is news then.
redis.call('SET', KEYS[6], '0', 'NX', 'PX', ARGV[5])
local node, batch = ARGV[1], tonumber(ARGV[4])
local removed, dropped = 0, 0
local all = has_presence and redis.call('HGETALL', KEYS[2]) or {}
for i = 1, #all, 2 do
  if place_of(all[i + 1], node) then
    if dropped == batch then return {removed, 1, is_damaged} end
    if dropped == 0 then redis.call('SET', KEYS[6], '1', 'PX', ARGV[5]) end
    dropped = dropped + 1
    removed = removed + drop_user(hooks, ARGV[3], KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[7], all[i], node)
  end
end
if not has_occupancy then return {removed, 0, is_damaged} end
local before = total(KEYS[4])
local announce = redis.call('HEXISTS', KEYS[4], '#') == 1
if redis.call('HDEL', KEYS[4], node) == 1 then
  redis.call('SET', KEYS[6], '1', 'PX', ARGV[5])
  local after = total(KEYS[4])
  count_changed(hooks, KEYS[4], KEYS[5], ARGV[2], ARGV[3], ARGV[7], ARGV[6] == '1', announce, before, after)
end
return {removed, 0, is_damaged}
