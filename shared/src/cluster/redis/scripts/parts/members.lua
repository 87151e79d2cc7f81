-- Members of a presence channel. The hash `members` has their user infos by user id. The hash `member_nodes` has the
-- ids of the nodes that each user is connected to, concatenated.

-- The field of `meta` with the number of members after the last change.
local MEMBERS_FIELD = 'n'

-- Fails if a key of the channel has the wrong type. Nothing has been changed then.
local function check_presence(members, member_nodes, meta)
  redis.call('HLEN', members)
  redis.call('HLEN', member_nodes)
  redis.call('HLEN', meta)
end

-- Publishes a change of members under the next position.
local function publish_change(members, meta, topic, kind, stamp_us, payload)
  local position = next_position(meta, MEMBER_CHANGES)
  redis.call('HSET', meta, MEMBERS_FIELD, redis.call('HLEN', members))
  redis.call('PUBLISH', topic, envelope(kind, position, stamp_us, NONE, payload))
end

-- Returns the index of a node in concatenated node ids, or nil.
local function index_of(node_ids, node)
  for i = 1, #node_ids, NODE_ID_LENGTH do
    if string.sub(node_ids, i, i + NODE_ID_LENGTH - 1) == node then return i end
  end
end

-- Removes one user of a node. If no other node has the user, publishes the change and returns 1; else returns 0.
local function remove_user(webhooks, channel, members, member_nodes, meta, topic, stamp_us, user, node)
  local node_ids = redis.call('HGET', member_nodes, user) or ''
  local index = index_of(node_ids, node)
  if not index then return 0 end
  node_ids = string.sub(node_ids, 1, index - 1) .. string.sub(node_ids, index + NODE_ID_LENGTH)
  if node_ids ~= '' then
    redis.call('HSET', member_nodes, user, node_ids)
    return 0
  end
  redis.call('HDEL', member_nodes, user)
  if redis.call('HDEL', members, user) == 0 then return 0 end
  publish_change(members, meta, topic, 'R', stamp_us, user)
  hold_end(webhooks, MEMBER_REMOVED, MEMBER_ADDED, channel, user)
  return 1
end
