-- Removes a dead node from a channel. A key of the wrong type is skipped, with all keys that depend on it. The node is
-- still removed from the other keys.
--
--     KEYS[1]  members           hash: user info by user id
--     KEYS[2]  member_nodes      hash: node ids by user id
--     KEYS[3]  meta              hash: epochs and sequences
--     KEYS[4]  counts            hash: subscriptions by node
--     KEYS[5]  occupied          set: occupied channels of the app in this partition
--     KEYS[6]  tombstone         string: '0', or '1' if the node had something in the channel
--     KEYS[7]  webhook_queue     stream
--     KEYS[8]  ready_apps        set: apps with new webhook events
--     KEYS[9]  holds             sorted set: held webhook events
--     ARGV[1]  node              node id
--     ARGV[2]  topic             topic of the channel
--     ARGV[3]  channel           channel name
--     ARGV[4]  users_max         number of users to remove
--     ARGV[5]  tombstone_ttl_ms  time to live of the tombstone, in milliseconds
--     ARGV[6]  is_user           1 or 0: whether it is the channel of a user
--     ARGV[7]  stamp_us          time of the change, in microseconds since 1970
--     ARGV[8]  app               app id
--     ARGV[9]  kinds             letters of the webhook kinds that endpoints request
--     ARGV[10] partition_prefix  first part of all keys of the partition
--     ARGV[11] is_new            1
--
-- Returns {members that left the channel, 1 or 0: whether users of the node may remain, 1 or 0: whether a key was
-- skipped}.
local members, member_nodes, meta, counts, occupied, tombstone = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local node, topic, channel, users_max, tombstone_ttl_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local is_user, stamp_us, kinds = ARGV[6] == '1', ARGV[7], ARGV[9]

local has_presence = has_type_of('HLEN', members) and has_type_of('HLEN', member_nodes) and has_type_of('HLEN', meta)
local has_occupancy = has_type_of('HLEN', counts) and has_type_of('SCARD', occupied)
local has_webhooks = has_type_of('XLEN', KEYS[7]) and has_type_of('SCARD', KEYS[8]) and has_type_of('ZCARD', KEYS[9])
local is_damaged = not (has_presence and has_occupancy and (has_webhooks or kinds == '')) and 1 or 0
if not has_webhooks then kinds = '' end
local webhooks = webhooks_of(ARGV[8], kinds, ARGV[10], ARGV[11], unpack(KEYS, 7))
redis.call('SET', tombstone, '0', 'NX', 'PX', tombstone_ttl_ms)
local left, removed = 0, 0
local all = has_presence and redis.call('HGETALL', member_nodes) or {}
for i = 1, #all, 2 do
  if index_of(all[i + 1], node) then
    if removed == users_max then return {left, 1, is_damaged} end
    if removed == 0 then redis.call('SET', tombstone, '1', 'PX', tombstone_ttl_ms) end
    removed = removed + 1
    left = left + remove_user(webhooks, channel, members, member_nodes, meta, topic, stamp_us, all[i], node)
  end
end
if not has_occupancy then return {left, 0, is_damaged} end
local before = total(counts)
local announce = redis.call('HEXISTS', counts, COUNTS_ANNOUNCED_FIELD) == 1
if redis.call('HDEL', counts, node) == 1 then
  redis.call('SET', tombstone, '1', 'PX', tombstone_ttl_ms)
  count_changed(webhooks, counts, occupied, topic, channel, stamp_us, is_user, announce, before, total(counts))
end
return {left, 0, is_damaged}
