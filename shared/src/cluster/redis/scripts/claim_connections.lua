-- Reports a node's connections of an app, and admits more within the quota. Connections of other nodes count only if
-- their leases do.
--
--     KEYS[1] connections    hash: connections by node
--     KEYS[2] reports        hash: time of the last report by node, in milliseconds since 1970
--     KEYS[3] nodes          sorted set: leases
--     KEYS[4] index          set: what the node may have
--     KEYS[5] lease_grace    string: exists while expired leases count
--     ARGV[1] node           node id
--     ARGV[2] count          number of open connections on the node
--     ARGV[3] requested      number of connections to admit
--     ARGV[4] quota          number of connections on all nodes
--     ARGV[5] ttl_ms         time to live of the connections, in milliseconds
--     ARGV[6] index_ttl_ms   time to live of the index, in milliseconds
--     ARGV[7] entry          entry of the index
--     ARGV[8] recount_topic  topic on which nodes are requested to report again
--     ARGV[9] app            app id
--
-- Returns {connections on all nodes, admitted connections, time, time of the oldest report that was counted}. Times are
-- in milliseconds since 1970.
local connections, reports, nodes, index, lease_grace = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node, count, requested, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl_ms, index_ttl_ms, entry, recount_topic, app = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

redis.call('SADD', index, entry)
redis.call('PEXPIRE', index, index_ttl_ms)
local now, is_counted = now_ms(), counted_nodes(nodes, lease_grace)
local others, oldest_report = 0, now
local all = redis.call('HGETALL', connections)
for i = 1, #all, 2 do
  local other, other_count = all[i], tonumber(all[i + 1]) or 0
  if other ~= node and other_count > 0 and is_counted(other) then
    others = others + other_count
    oldest_report = math.min(oldest_report, tonumber(redis.call('HGET', reports, other)) or 0)
  end
end
local admitted = math.max(0, math.min(requested, quota - others - count))
count = count + admitted
if count > 0 then
  redis.call('HSET', connections, node, string.format('%d', count))
  redis.call('HSET', reports, node, string.format('%d', now))
  redis.call('PEXPIRE', connections, ttl_ms)
  redis.call('PEXPIRE', reports, ttl_ms)
else
  redis.call('HDEL', connections, node)
  redis.call('HDEL', reports, node)
end
if admitted < requested and others > 0 then redis.call('PUBLISH', recount_topic, app) end
return {others + count, admitted, now, oldest_report}
