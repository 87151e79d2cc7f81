-- KEYS: holds news
-- ARGV: base most
-- Tells of what was held long enough. Returns the apps that have something new in their queues.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms(), 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
  redis.call('ZREM', KEYS[1], name)
  local kind, app, channel, user = string.match(name, '^(%a)\n([^\n]*)\n([^\n]*)\n(.*)$')
  if kind == 'V' then
    tell({'', ARGV[1], app}, kind, channel)
  elseif kind == 'R' then
    tell({'', ARGV[1], app}, kind, channel, 'u', user)
  elseif kind == 'C' then
    local sum = total(ARGV[1] .. ':oc:' .. app .. '/' .. channel)
    if sum > 0 then tell({'', ARGV[1], app}, kind, channel, 'n', sum) end
  end
end
return redis.call('SPOP', KEYS[2], ARGV[2])
