-- Deletes a key, unless another owner has it.
--
--     KEYS[1] key    string: the owner
--     ARGV[1] owner  the owner that releases the key
--
-- Returns 1, or 0 if the key is missing or has another owner.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
