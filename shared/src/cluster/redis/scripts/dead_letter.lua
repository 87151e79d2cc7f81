-- KEYS: queue dead
-- ARGV: group place count_max bytes_max age_max_ms, then fields and values
-- Makes a dead letter of an entry, unless it is done with. Returns whether it did.
redis.call('XLEN', KEYS[2])
redis.call('HLEN', state_of(KEYS[2]))
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
append(KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), unpack(ARGV, 6))
return 1
