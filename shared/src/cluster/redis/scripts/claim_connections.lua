-- KEYS: connections reports nodes index quiet
-- ARGV: node count wanted quota ttl_ms index_ttl_ms entry recount_topic app
-- Reports that the node has so many connections of the app, and admits more within the quota. Only nodes with a valid lease
-- count. Returns how many there are cluster-wide, how many of those wanted are admitted, the time, and the time of the
-- oldest report of another node that was counted.
redis.call('SADD', KEYS[4], ARGV[7])
redis.call('PEXPIRE', KEYS[4], ARGV[6])
local now, is_counted = now_ms(), counted_nodes(KEYS[3], KEYS[5])
local others, oldest = 0, now
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local node, count = all[i], tonumber(all[i + 1]) or 0
  if node ~= ARGV[1] and count > 0 and is_counted(node) then
    others = others + count
    oldest = math.min(oldest, tonumber(redis.call('HGET', KEYS[2], node)) or 0)
  end
end
local count, wanted = tonumber(ARGV[2]), tonumber(ARGV[3])
local admitted = math.max(0, math.min(wanted, tonumber(ARGV[4]) - others - count))
count = count + admitted
if count > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', count))
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%d', now))
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
if admitted < wanted and others > 0 then redis.call('PUBLISH', ARGV[8], ARGV[9]) end
return {others + count, admitted, now, oldest}
