-- KEYS: session
-- ARGV: address of the node
-- The node does not have the session any more, unless it is another's by now.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
