-- KEYS: nodes dead, then the tombstone of each node to declare dead
-- ARGV: dead_max nodes_max tombstone_ms, then node and lease of each node to declare dead
-- Declares nodes dead whose lease is still the one that the caller saw. This is the point of no return for them.
-- Returns {dead nodes that are not swept yet, nodes and their leases}.
local time = redis.call('TIME')
for i = 3, #KEYS do
  local node, lease = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if redis.call('ZSCORE', KEYS[1], node) == lease then
    redis.call('ZREM', KEYS[1], node)
    redis.call('ZADD', KEYS[2], time[1], node)
    redis.call('SET', KEYS[i], '1', 'PX', ARGV[3])
  end
end
return {redis.call('ZRANGE', KEYS[2], 0, ARGV[1] - 1), redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1, 'WITHSCORES')}
