-- KEYS: members holders meta queue news holds
-- ARGV: node user topic stamp app wanted base is_news channel
-- Returns 1 when the user is gone from the channel, 0 when not, or when this node did not hold it.
check_presence(KEYS[1], KEYS[2], KEYS[3])
local hooks = hooks_of(ARGV[5], ARGV[6], ARGV[7], ARGV[8], unpack(KEYS, 4))
return drop_user(hooks, ARGV[9], KEYS[1], KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[2], ARGV[1])
