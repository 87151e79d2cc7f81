-- Removes a member of a node from a presence channel and publishes the change if no other node has the member.
--
--     KEYS[1] members           hash: user info by user id
--     KEYS[2] member_nodes      hash: node ids by user id
--     KEYS[3] meta              hash: epochs and sequences
--     KEYS[4] webhook_queue     stream
--     KEYS[5] ready_apps        set: apps with new webhook events
--     KEYS[6] holds             sorted set: held webhook events
--     ARGV[1] node              node id
--     ARGV[2] user              user id
--     ARGV[3] topic             topic of the channel
--     ARGV[4] stamp_us          time of the change, in microseconds since 1970
--     ARGV[5] app               app id
--     ARGV[6] kinds             letters of the webhook kinds that endpoints request
--     ARGV[7] partition_prefix  first part of all keys of the partition
--     ARGV[8] is_new            1
--     ARGV[9] channel           channel name
--
-- Returns 1 if the user left the channel. Returns 0 if another node has the user, or if the node did not have it.
local members, member_nodes, meta = KEYS[1], KEYS[2], KEYS[3]
local node, user, topic, stamp_us, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[9]

check_presence(members, member_nodes, meta)
local webhooks = webhooks_of(ARGV[5], ARGV[6], ARGV[7], ARGV[8], unpack(KEYS, 4))
return remove_user(webhooks, channel, members, member_nodes, meta, topic, stamp_us, user, node)
