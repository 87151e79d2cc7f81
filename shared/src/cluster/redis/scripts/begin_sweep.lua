-- KEYS: dead claim
-- ARGV: node sweeper claim_ms
-- Starts or continues the sweep of a dead node. Returns 1, or 0 when the node is swept already or another sweeper has it.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local sweeper = redis.pcall('GET', KEYS[2])
if type(sweeper) == 'string' and sweeper ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
