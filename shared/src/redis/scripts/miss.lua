-- KEYS: asked queue news holds
-- ARGV: app wanted channel pause_ms
-- Tells once in a while that a cache channel has nothing for a subscriber.
local hooks = hooks_of(ARGV[1], ARGV[2], KEYS[2], KEYS[3], KEYS[4])
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[4]) then tell(hooks, 'M', ARGV[3]) end
return 0
