-- KEYS: queue dead
-- ARGV: group place most, then fields and values
-- Makes a dead letter of an entry, unless it is done with. Returns whether it did.
redis.call('XLEN', KEYS[2])
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
return 1
