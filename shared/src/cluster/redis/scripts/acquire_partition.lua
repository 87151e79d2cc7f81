-- Acquires or renews a dispatcher's lease of a partition, and enqueues the held webhook events that are due.
--
--     KEYS[1] lease             string: id of the dispatcher that has the partition
--     KEYS[2] holds             sorted set: held webhook events
--     KEYS[3] ready_apps        set: apps with new webhook events
--     ARGV[1] dispatcher        id of the dispatcher
--     ARGV[2] lease_ms          duration of the lease, in milliseconds
--     ARGV[3] partition_prefix  first part of all keys of the partition
--     ARGV[4] batch_max         number of held events to enqueue, and number of apps to return
--
-- Returns {status, apps with new webhook events}. The status is 0 if another dispatcher has the partition, 1 if the
-- lease was renewed, and 2 if it was acquired.
local lease, holds, ready_apps = KEYS[1], KEYS[2], KEYS[3]
local dispatcher, lease_ms, partition_prefix, batch_max = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local owner = redis.call('GET', lease)
if owner and owner ~= dispatcher then return {0, {}} end
-- Each command fails if its key has the wrong type. Nothing has been changed yet.
redis.call('ZCARD', holds)
redis.call('SCARD', ready_apps)
redis.call('SET', lease, dispatcher, 'PX', lease_ms)
enqueue_due(partition_prefix, ready_apps, holds, batch_max)
return {owner and 1 or 2, redis.call('SPOP', ready_apps, batch_max)}
