-- KEYS: nodes dead
-- ARGV: grace_ms limit
-- Returns all nodes that are dead and not swept yet. Moving a node here is the point of no return for it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('ZADD', KEYS[2], now, node)
end
return redis.call('ZRANGE', KEYS[2], 0, ARGV[2] - 1)
