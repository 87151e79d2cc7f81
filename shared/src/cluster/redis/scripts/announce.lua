-- Shared by all scripts. Messages are those of envelope/wire.rs.

-- Meta outlives its channel by far: a sequence that starts over makes every node resynchronize the channel.
local META_TTL_MS = 86400000

-- Letters of a node's id: lists of nodes are ids in a row.
local NODE_LETTERS = 32

-- The sequences of a channel, as fields of its meta: changes of members, and kept events.
local CHANGES = {epoch = 'e', sequence = 's', server = 'er'}
local KEPT = {epoch = 'ke', sequence = 'ks', server = 'kr'}

-- The field of meta with the number of members after the last change.
local MEMBERS_FIELD = 'n'

-- Larger numbers are not exact in Lua. An epoch or sequence above it is not one of ours.
local COUNTER_MAX = 9000000000000000

local server_id

-- The run id of the server process that executes this script. A restart or a failover changes it. Where the user may not
-- run INFO, all servers are the same one.
local function current_server()
  if not server_id then
    local info = redis.pcall('INFO', 'server')
    server_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  end
  return server_id
end

local function is_counter(text)
  return text and string.match(text, '^%d+$') and tonumber(text) <= COUNTER_MAX
end

-- Starts a sequence over, under a later epoch. Epochs are made from the clock; where the clock has gone back, the next
-- number is taken.
local function begin_epoch(meta, names)
  local time = redis.call('TIME')
  local epoch = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local last = redis.call('HGET', meta, names.epoch)
  if is_counter(last) and tonumber(last) >= epoch then epoch = tonumber(last) + 1 end
  epoch = string.format('%.0f', epoch)
  redis.call('HSET', meta, names.epoch, epoch, names.sequence, '0', names.server, current_server())
  redis.call('PEXPIRE', meta, META_TTL_MS)
  return epoch
end

-- Returns the epoch of a sequence. The sequence starts over if it is missing or unreadable, or if another server process
-- counted it last. A promoted replica, or a server that loaded an older state, may lack the end of the sequence. It would
-- give a position twice.
local function epoch_of(meta, names)
  local epoch = redis.call('HGET', meta, names.epoch)
  if not is_counter(epoch) or not is_counter(redis.call('HGET', meta, names.sequence))
    or redis.call('HGET', meta, names.server) ~= current_server() then
    epoch = begin_epoch(meta, names)
  end
  redis.call('PEXPIRE', meta, META_TTL_MS)
  return epoch
end

-- Fails before anything has changed when a key of a presence channel holds something else.
local function check_presence(members, holders, meta)
  redis.call('HLEN', members)
  redis.call('HLEN', holders)
  redis.call('HLEN', meta)
end

-- Announces a change of members under the next sequence number.
local function announce_change(members, meta, topic, kind, stamp, payload)
  local epoch = epoch_of(meta, CHANGES)
  local sequence = redis.call('HINCRBY', meta, CHANGES.sequence, 1)
  redis.call('HSET', meta, MEMBERS_FIELD, redis.call('HLEN', members))
  redis.call('PUBLISH', topic, '1 ' .. kind .. ' ' .. epoch .. ' ' .. sequence .. ' ' .. stamp .. ' -\n' .. payload)
end

-- Where a node stands in a list of nodes, or nil.
local function place_of(nodes, node)
  for at = 1, #nodes, NODE_LETTERS do
    if string.sub(nodes, at, at + NODE_LETTERS - 1) == node then return at end
  end
end

-- How long an end waits for a return, which cancels both. Source: protocol reference 5.
local HOLD_MS = 3000

-- Counts above this many are told of at most once in so long.
local COUNT_FREELY_UP_TO = 100
local COUNT_PAUSE_MS = 5000

-- Bounds of a queue of webhooks, of one app and partition. The oldest entries are dropped first. Without new entries and
-- without a publisher that sends them the queue expires.
local QUEUE_MAX = 1000000
local QUEUE_BYTES_MAX = 67108864
local QUEUE_TTL_MS = 86400000

-- The bytes of an entry besides its fields.
local ENTRY_BYTES = 128

-- The bounds are checked each time that so many bytes were added.
local CHECK_BYTES = 65536

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Returns the latest expiry among the leases of all nodes, or 0 without any.
local function newest_lease(nodes)
  return tonumber(redis.call('ZRANGE', nodes, -1, -1, 'WITHSCORES')[2] or 0)
end

-- Returns a function that checks whether the connections of a node count: its lease is valid. While no lease is valid, and
-- for a while after that (quiet), expired leases count too, because living nodes have not had the time to renew theirs.
local function counted_nodes(nodes, quiet)
  local now = now_ms()
  local is_quiet = newest_lease(nodes) <= now or redis.call('EXISTS', quiet) == 1
  return function(node)
    local lease = tonumber(redis.call('ZSCORE', nodes, node) or 0)
    return lease > (is_quiet and 0 or now)
  end
end

local function wants(hooks, kind)
  return string.find(hooks.wanted, kind, 1, true) ~= nil
end

-- Returns the key of the state of a stream of webhooks. Field b: the bytes that were ever added. Field x: the entries that were
-- dropped since the last report. Field r:LABEL: the time at which a publisher last served this endpoint.
local function state_of(stream)
  return stream .. ':m'
end

-- The field of an entry, or nil.
local function field_of(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- Drops the oldest entries of a stream until it is within its bounds. total: the bytes that were ever added. Each entry has
-- in its field b what that was with it, so the difference is the bytes behind it.
local function shorten(stream, count_max, bytes_max, total)
  local excess = redis.call('XLEN', stream) - count_max
  local from, keep, dropped, unknown, passed = '-', nil, 0, nil, 0
  repeat
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 64)
    for _, entry in ipairs(page) do
      local with = tonumber(field_of(entry, 'b'))
      if excess > 0 then
        excess = excess - 1
        dropped = dropped + 1
      elseif not with then
        -- An entry without the field stays if the next one with it does.
        unknown = unknown or entry[1]
        passed = passed + 1
      elseif total - with < bytes_max then
        keep = unknown or entry[1]
        break
      else
        dropped = dropped + passed + 1
        unknown, passed = nil, 0
      end
      from = '(' .. entry[1]
    end
  until keep or #page == 0
  if dropped == 0 or not keep then return end
  redis.call('XTRIM', stream, 'MINID', keep)
  redis.call('HINCRBY', state_of(stream), 'x', dropped)
end

-- Appends an entry to a stream of webhooks and keeps the stream within its bounds.
local function append(stream, count_max, bytes_max, ttl_ms, ...)
  local bytes = ENTRY_BYTES
  for _, text in ipairs({...}) do bytes = bytes + #tostring(text) end
  local state = state_of(stream)
  local total = redis.call('HINCRBY', state, 'b', bytes)
  redis.call('XADD', stream, '*', 'b', string.format('%.0f', total), ...)
  redis.call('PEXPIRE', stream, ttl_ms)
  redis.call('PEXPIRE', state, ttl_ms)
  if math.floor(total / CHECK_BYTES) ~= math.floor((total - bytes) / CHECK_BYTES) then
    shorten(stream, count_max, bytes_max, total)
  end
end

-- Appends an entry to the queue of the app's webhooks.
local function tell(hooks, kind, channel, ...)
  append(hooks.queue, QUEUE_MAX, QUEUE_BYTES_MAX, QUEUE_TTL_MS, 'k', kind, 'c', channel, ...)
  redis.call('SADD', hooks.news, hooks.app)
end

-- What is held. User ids may contain anything, so they come last.
local function held(hooks, kind, channel, user)
  return kind .. '\n' .. hooks.app .. '\n' .. channel .. '\n' .. (user or '')
end

-- Subscriptions of all nodes. '#' is not a node: it tells a sweep that counts are announced.
local function total(occupancy)
  local sum = 0
  local all = redis.call('HGETALL', occupancy)
  for i = 1, #all, 2 do
    -- A count that is no number counts nothing: an error here would stop everyone who subscribes.
    if all[i] ~= '#' then sum = sum + (tonumber(all[i + 1]) or 0) end
  end
  return sum
end

-- Whether a key holds what this command is for.
local function is_good(command, key)
  return type(redis.pcall(command, key)) == 'number'
end

-- Tells of what was held long enough. Whoever changes something does so first, since an end whose time is over is not
-- cancelled any more.
local function tell_due(base, news, holds, most)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', holds, '-inf', now_ms(), 'LIMIT', 0, most)) do
    redis.call('ZREM', holds, name)
    local kind, app, channel, user = string.match(name, '^(%a)\n([^\n]*)\n([^\n]*)\n(.*)$')
    local queue = base .. ':wq:' .. (app or '')
    -- What cannot be told for a key that holds something else is told by nobody.
    if kind and is_good('XLEN', queue) and is_good('HLEN', state_of(queue)) then
      local hooks = {app = app, queue = queue, news = news}
      if kind == 'V' then
        tell(hooks, kind, channel)
      elseif kind == 'R' then
        tell(hooks, kind, channel, 'u', user)
      elseif kind == 'C' and is_good('HLEN', base .. ':oc:' .. app .. '/' .. channel) then
        local sum = total(base .. ':oc:' .. app .. '/' .. channel)
        if sum > 0 then tell(hooks, kind, channel, 'n', sum) end
      end
    end
  end
end

-- What is told of an app, and where. wanted: letters of the kinds that an endpoint wants. is_news: '0' for what the node has
-- asserted before; it is news all the same if it was swept under an earlier id of the node, one of whose tombstones then
-- says so: receivers were told of an end. After Redis lost what it knew they were not.
local function hooks_of(app, wanted, base, is_news, queue, news, holds, ...)
  local hooks = {app = app, wanted = wanted, queue = queue, news = news, holds = holds, is_news = is_news == '1'}
  for _, earlier in ipairs({...}) do
    if redis.pcall('GET', earlier) == '1' then hooks.is_news = true end
  end
  if wanted ~= '' then
    -- Fails before anything has changed when a key holds something else.
    redis.call('XLEN', queue)
    redis.call('HLEN', state_of(queue))
    redis.call('SCARD', news)
    redis.call('ZCARD', holds)
    tell_due(base, news, holds, 100)
  end
  return hooks
end

-- Something began: a channel is occupied, a user is there. Nothing is told of a return within the hold.
local function began(hooks, kind, ending, channel, user)
  if hooks.wanted == '' then return end
  local was_held = redis.call('ZREM', hooks.holds, held(hooks, ending, channel, user),
    held(hooks, string.lower(ending), channel, user))
  if was_held > 0 or not hooks.is_news or not wants(hooks, kind) then return end
  if user then tell(hooks, kind, channel, 'u', user) else tell(hooks, kind, channel) end
end

-- Something ended. Where only the beginning is wanted it is held all the same, as a small letter: a return must not be told.
local function ended(hooks, kind, beginning, channel, user)
  local letter = kind
  if not wants(hooks, kind) then
    if not wants(hooks, beginning) then return end
    letter = string.lower(kind)
  end
  redis.call('ZADD', hooks.holds, now_ms() + HOLD_MS, held(hooks, letter, channel, user))
end

-- A channel has another count. That it has none is told by its end.
local function counted(hooks, channel, count)
  if not wants(hooks, 'C') then return end
  local name = held(hooks, 'C', channel)
  if count > COUNT_FREELY_UP_TO then
    redis.call('ZADD', hooks.holds, 'NX', now_ms() + COUNT_PAUSE_MS, name)
  else
    redis.call('ZREM', hooks.holds, name)
    if count > 0 then tell(hooks, 'C', channel, 'n', count) end
  end
end

-- Takes one user of a node out; announces it when no other node holds the user.
local function drop_user(hooks, channel, members, holders, meta, topic, stamp, user, node)
  local nodes = redis.call('HGET', holders, user) or ''
  local at = place_of(nodes, node)
  if not at then return 0 end
  nodes = string.sub(nodes, 1, at - 1) .. string.sub(nodes, at + NODE_LETTERS)
  if nodes ~= '' then
    redis.call('HSET', holders, user, nodes)
    return 0
  end
  redis.call('HDEL', holders, user)
  if redis.call('HDEL', members, user) == 0 then return 0 end
  announce_change(members, meta, topic, 'R', stamp, user)
  ended(hooks, 'R', 'A', channel, user)
  return 1
end

-- What follows when the count of a channel went from one number to another.
local function count_changed(hooks, occupancy, occupied, topic, name, stamp, is_user, announce, before, after)
  if after == 0 then
    redis.call('DEL', occupancy)
    redis.call('SREM', occupied, name)
  else
    redis.call('SADD', occupied, name)
  end
  if is_user then
    if (before == 0) ~= (after == 0) then
      redis.call('PUBLISH', topic, '1 O - - ' .. stamp .. ' -\n' .. (after > 0 and '1' or '0'))
    end
    return
  end
  if before == 0 and after > 0 then began(hooks, 'O', 'V', name) end
  if announce and before ~= after then
    redis.call('PUBLISH', topic, '1 C - - ' .. stamp .. ' -\n' .. after)
    counted(hooks, name, after)
  end
  if before > 0 and after == 0 then ended(hooks, 'V', 'O', name) end
end
