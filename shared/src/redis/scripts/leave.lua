-- KEYS: members holders meta
-- ARGV: node user topic stamp
-- Returns 1 when the user is gone from the channel, 0 when not, or when this node did not hold it.
check_presence(KEYS[1], KEYS[2], KEYS[3])
return drop_user(KEYS[1], KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[2], ARGV[1])
