-- Renews the time to live of a channel's keys and adds the channel to the occupied ones.
--
--     KEYS[1] counts        hash: subscriptions by node
--     KEYS[2] occupied      set: occupied channels of the app in this partition
--     KEYS[3] meta          hash: epochs and sequences
--     KEYS[4] members       hash: user info by user id; only for presence channels
--     KEYS[5] member_nodes  hash: node ids by user id; only for presence channels
--     ARGV[1] node          node id
--     ARGV[2] channel       channel name
--     ARGV[3] ttl_ms        time to live, in milliseconds
--
-- Returns 1, or 0 if a key or the node's count is missing.
local counts, occupied, meta, members, member_nodes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node, channel, ttl_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', counts, node) == 0 then return 0 end
redis.call('SADD', occupied, channel)
redis.call('PEXPIRE', counts, ttl_ms)
redis.call('PEXPIRE', occupied, ttl_ms)
if redis.call('EXISTS', meta) == 1 then redis.call('PEXPIRE', meta, CHANNEL_META_TTL_MS) end
if not members then return 1 end
return redis.call('PEXPIRE', members, ttl_ms) * redis.call('PEXPIRE', member_nodes, ttl_ms)
