-- Sets a node's number of subscriptions to a channel, and publishes what changes by it.
--
--     KEYS[1]   counts            hash: subscriptions by node
--     KEYS[2]   occupied          set: occupied channels of the app in this partition
--     KEYS[3]   tombstone         string: exists if the node was swept from the channel
--     KEYS[4]   webhook_queue     stream
--     KEYS[5]   ready_apps        set: apps with new webhook events
--     KEYS[6]   holds             sorted set: held webhook events
--     KEYS[7..] tombstones        strings: tombstones of the node's earlier ids; for a repeated count
--     ARGV[1]   node              node id
--     ARGV[2]   count             number of subscriptions
--     ARGV[3]   topic             topic of the channel
--     ARGV[4]   channel           channel name
--     ARGV[5]   ttl_ms            time to live of the channel's keys, in milliseconds
--     ARGV[6]   announce          1 or 0: whether the channel publishes its counts
--     ARGV[7]   is_user           1 or 0: whether it is the channel of a user
--     ARGV[8]   stamp_us          time of the change, in microseconds since 1970
--     ARGV[9]   app               app id
--     ARGV[10]  kinds             letters of the webhook kinds that endpoints request
--     ARGV[11]  partition_prefix  first part of all keys of the partition
--     ARGV[12]  is_new            1, or 0 for a repeated count
--
-- Returns 0, or FENCED if the node was swept from the channel.
local counts, occupied, tombstone = KEYS[1], KEYS[2], KEYS[3]
local node, count, topic, channel, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local announce, is_user, stamp_us, is_new = ARGV[6] == '1', ARGV[7] == '1', ARGV[8], ARGV[12]

if redis.call('EXISTS', tombstone) == 1 then return FENCED end
local before = total(counts)
-- Fails if the key has the wrong type. Nothing has been changed yet.
redis.call('SCARD', occupied)
local webhooks = webhooks_of(ARGV[9], ARGV[10], ARGV[11], is_new, unpack(KEYS, 4))
if count == '0' and is_new == '0' and redis.call('HEXISTS', counts, COUNTS_ANNOUNCED_FIELD) == 1 then
  -- The node has unsubscribed from the channel already, so it does not have this setting any more.
  announce = true
end
if announce then redis.call('HSET', counts, COUNTS_ANNOUNCED_FIELD, '1') end
if count == '0' then
  redis.call('HDEL', counts, node)
else
  redis.call('HSET', counts, node, count)
end
count_changed(webhooks, counts, occupied, topic, channel, stamp_us, is_user, announce, before, total(counts))
redis.call('PEXPIRE', counts, ttl_ms)
redis.call('PEXPIRE', occupied, ttl_ms)
return 0
