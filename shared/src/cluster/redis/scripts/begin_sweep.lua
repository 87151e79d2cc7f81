-- Starts or continues the sweep of a dead node.
--
--     KEYS[1] dead          sorted set: dead nodes that are not swept yet
--     KEYS[2] claim         string: id of the sweeping node
--     ARGV[1] node          node id of the dead node
--     ARGV[2] sweeper       node id of the sweeping node
--     ARGV[3] claim_ttl_ms  time to live of the claim, in milliseconds
--
-- Returns 1, or 0 if the node was swept already or another node sweeps it.
local dead, claim = KEYS[1], KEYS[2]
local node, sweeper, claim_ttl_ms = ARGV[1], ARGV[2], ARGV[3]

if not redis.call('ZSCORE', dead, node) then return 0 end
local owner = redis.pcall('GET', claim)
if type(owner) == 'string' and owner ~= sweeper then return 0 end
redis.call('SET', claim, sweeper, 'PX', claim_ttl_ms)
return 1
