-- KEYS: nodes
-- ARGV: node lease_ms register
-- Returns 1, or 0 to a node that is not registered any more and did not ask to be.
if ARGV[3] == '0' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
