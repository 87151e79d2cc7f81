-- KEYS: dead claim
-- ARGV: node sweeper
-- Ends the sweep of a dead node. Returns 1, or 0 when the sweeper has lost its claim.
if redis.pcall('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
