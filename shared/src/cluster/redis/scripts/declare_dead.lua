-- Declares nodes dead if their leases still have the given values. A node that was declared dead cannot renew its
-- lease.
--
--     KEYS[1]   nodes             sorted set: leases
--     KEYS[2]   dead              sorted set: dead nodes that are not swept yet, by the time in seconds since 1970
--     KEYS[3..] tombstones        strings: one for each node to declare dead
--     ARGV[1]   dead_max          number of dead nodes to return
--     ARGV[2]   nodes_max         number of nodes to return
--     ARGV[3]   tombstone_ttl_ms  time to live of the tombstones, in milliseconds
--     ARGV[4..]                   node id and lease of each node to declare dead
--
-- Returns {dead nodes that are not swept yet, flat list of nodes and leases}.
local nodes, dead = KEYS[1], KEYS[2]
local dead_max, nodes_max, tombstone_ttl_ms = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
for i = 3, #KEYS do
  local node, lease = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if redis.call('ZSCORE', nodes, node) == lease then
    redis.call('ZREM', nodes, node)
    redis.call('ZADD', dead, time[1], node)
    redis.call('SET', KEYS[i], '1', 'PX', tombstone_ttl_ms)
  end
end
return {redis.call('ZRANGE', dead, 0, dead_max - 1), redis.call('ZRANGE', nodes, 0, nodes_max - 1, 'WITHSCORES')}
