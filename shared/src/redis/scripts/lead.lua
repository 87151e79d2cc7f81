-- KEYS: lease holds news
-- ARGV: sender lease_ms base most
-- Takes or keeps the lease of a partition, and tells of what was held long enough. Returns {status, apps with news}; status
-- is 0 when another sender leads, 1 when this one does, and 2 when it does from now on.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return {0, {}} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms(), 'LIMIT', 0, ARGV[4])) do
  redis.call('ZREM', KEYS[2], name)
  local kind, app, channel, user = string.match(name, '^(%a)\n([^\n]*)\n([^\n]*)\n(.*)$')
  local hooks = {app = app, queue = ARGV[3] .. ':wq:' .. (app or ''), news = KEYS[3]}
  if kind == 'V' then
    tell(hooks, kind, channel)
  elseif kind == 'R' then
    tell(hooks, kind, channel, 'u', user)
  elseif kind == 'C' then
    local sum = total(ARGV[3] .. ':oc:' .. app .. '/' .. channel)
    if sum > 0 then tell(hooks, kind, channel, 'n', sum) end
  end
end
return {leader and 1 or 2, redis.call('SPOP', KEYS[3], ARGV[4])}
