-- Enqueues a cache miss, unless one was enqueued for the channel a short time ago.
--
--     KEYS[1] cache_miss_sent   string: exists for a time after a cache miss was enqueued
--     KEYS[2] webhook_queue     stream
--     KEYS[3] ready_apps        set: apps with new webhook events
--     KEYS[4] holds             sorted set: held webhook events
--     ARGV[1] interval_ms       shortest time between two cache misses, in milliseconds
--     ARGV[2] channel           channel name
--     ARGV[3] app               app id
--     ARGV[4] kinds             letters of the webhook kinds that endpoints request
--     ARGV[5] partition_prefix  first part of all keys of the partition
--     ARGV[6] is_new            1
--
-- Returns 0.
local cache_miss_sent, interval_ms, channel = KEYS[1], ARGV[1], ARGV[2]

local webhooks = webhooks_of(ARGV[3], ARGV[4], ARGV[5], ARGV[6], unpack(KEYS, 2))
if redis.call('SET', cache_miss_sent, '1', 'NX', 'PX', interval_ms) then
  enqueue_event(webhooks, CACHE_MISS, channel)
end
return 0
