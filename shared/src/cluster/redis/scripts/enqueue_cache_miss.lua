-- KEYS: asked queue news holds
-- ARGV: pause_ms channel app wanted base is_news
-- Tells once in a while that a cache channel has nothing for a subscriber.
local hooks = hooks_of(ARGV[3], ARGV[4], ARGV[5], ARGV[6], unpack(KEYS, 2))
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then tell(hooks, 'M', ARGV[2]) end
return 0
