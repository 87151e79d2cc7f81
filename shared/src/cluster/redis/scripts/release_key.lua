-- KEYS: what is held
-- ARGV: who holds it
-- It is nobody's, unless it is another's by now.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
