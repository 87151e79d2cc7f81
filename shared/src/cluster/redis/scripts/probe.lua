-- Writes and deletes a key. Fails if the server refuses writes.
--
--     KEYS[1] key  a key that only this node uses
--
-- Returns 1.
redis.call('SET', KEYS[1], '1')
redis.call('DEL', KEYS[1])
return 1
