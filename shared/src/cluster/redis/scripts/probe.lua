-- KEYS: a key of the node's own
-- Returns 1 and leaves nothing behind. Fails when the server does not accept writes.
redis.call('SET', KEYS[1], '1')
redis.call('DEL', KEYS[1])
return 1
