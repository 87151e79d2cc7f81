-- Adds a member to a presence channel and publishes the change if no node has the member yet.
--
--     KEYS[1]   members           hash: user info by user id
--     KEYS[2]   member_nodes      hash: node ids by user id
--     KEYS[3]   meta              hash: epochs and sequences
--     KEYS[4]   tombstone         string: exists if the node was swept from the channel
--     KEYS[5]   webhook_queue     stream
--     KEYS[6]   ready_apps        set: apps with new webhook events
--     KEYS[7]   holds             sorted set: held webhook events
--     KEYS[8..] tombstones        strings: tombstones of the node's earlier ids; for a repeated join
--     ARGV[1]   node              node id
--     ARGV[2]   user              user id
--     ARGV[3]   info              JSON, or empty
--     ARGV[4]   topic             topic of the channel
--     ARGV[5]   ttl_ms            time to live of the channel's keys, in milliseconds
--     ARGV[6]   members_max       number of users
--     ARGV[7]   with_members      1 or 0: whether to return the members
--     ARGV[8]   stamp_us          time of the change, in microseconds since 1970
--     ARGV[9]   app               app id
--     ARGV[10]  kinds             letters of the webhook kinds that endpoints request
--     ARGV[11]  partition_prefix  first part of all keys of the partition
--     ARGV[12]  is_new            1, or 0 for a repeated join
--     ARGV[13]  channel           channel name
--
-- Returns {status, epoch, sequence, members}. The status is 0, FULL or FENCED. The members are a flat list of ids and
-- infos.
local members, member_nodes, meta, tombstone = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, user, info, topic, ttl_ms, members_max = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local with_members, stamp_us, channel = ARGV[7] == '1', ARGV[8], ARGV[13]

if redis.call('EXISTS', tombstone) == 1 then return {FENCED, '0', '0', {}} end
check_presence(members, member_nodes, meta)
local webhooks = webhooks_of(ARGV[9], ARGV[10], ARGV[11], ARGV[12], unpack(KEYS, 5))
if redis.call('EXISTS', members) ~= redis.call('EXISTS', member_nodes) then
  -- Redis has lost one of the keys. The other one cannot be used alone.
  redis.call('DEL', members, member_nodes)
  begin_epoch(meta, MEMBER_CHANGES)
  redis.call('HSET', meta, MEMBERS_FIELD, '0')
elseif redis.call('HLEN', members) < (tonumber(redis.call('HGET', meta, MEMBERS_FIELD) or '0') or 0) then
  -- Members were lost without a published change: they expired when the clock jumped, or Redis evicted them. After a
  -- later epoch every node joins again.
  begin_epoch(meta, MEMBER_CHANGES)
  redis.call('HSET', meta, MEMBERS_FIELD, redis.call('HLEN', members))
end
local is_member = redis.call('HEXISTS', members, user) == 1
if not is_member and redis.call('HLEN', members) >= members_max then return {FULL, '0', '0', {}} end
local epoch = epoch_of(meta, MEMBER_CHANGES)
local node_ids = redis.call('HGET', member_nodes, user) or ''
if not index_of(node_ids, node) then redis.call('HSET', member_nodes, user, node_ids .. node) end
if not is_member then
  redis.call('HSET', members, user, info)
  publish_change(members, meta, topic, 'A', stamp_us, #user .. ':' .. user .. info)
  enqueue_begin(webhooks, MEMBER_ADDED, MEMBER_REMOVED, channel, user)
end
redis.call('PEXPIRE', members, ttl_ms)
redis.call('PEXPIRE', member_nodes, ttl_ms)
local list = {}
if with_members then list = redis.call('HGETALL', members) end
return {0, epoch, redis.call('HGET', meta, MEMBER_CHANGES.sequence) or '0', list}
