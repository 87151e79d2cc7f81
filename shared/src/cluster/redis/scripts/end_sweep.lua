-- Ends the sweep of a dead node.
--
--     KEYS[1] dead     sorted set: dead nodes that are not swept yet
--     KEYS[2] claim    string: id of the sweeping node
--     ARGV[1] node     node id of the dead node
--     ARGV[2] sweeper  node id of the sweeping node
--
-- Returns 1, or 0 if the sweeper has lost its claim.
local dead, claim = KEYS[1], KEYS[2]
local node, sweeper = ARGV[1], ARGV[2]

if redis.pcall('GET', claim) ~= sweeper then return 0 end
redis.call('DEL', claim)
return redis.call('ZREM', dead, node)
