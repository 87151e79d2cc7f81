-- Measures the backlog of an app's endpoints. Drops events that all endpoints have acknowledged, groups that no
-- publisher has served for the grace period, and dead letters that are too old.
--
--     KEYS[1]   queue         stream
--     KEYS[2]   dead_letters  stream
--     ARGV[1]   grace_ms      time to keep the group of an unknown endpoint, in milliseconds
--     ARGV[2]   age_max_ms    age of a dead letter, in milliseconds
--     ARGV[3..] groups        consumer groups of all configured endpoints
--
-- Returns the undelivered events and the dead letters that were dropped since the last call, and the removed groups.
-- Three values follow for each configured group that exists: its name, the unacknowledged events, and the id of the
-- oldest or ''.
local queue, dead_letters = KEYS[1], KEYS[2]
local grace_ms, age_max_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local function is_before(a, b)
  local a_ms, a_sequence = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_sequence = string.match(b, '^(%d+)-(%d+)$')
  if tonumber(a_ms) ~= tonumber(b_ms) then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_sequence) < tonumber(b_sequence)
end

local now = now_ms()

-- Returns the number of entries of a stream that were dropped since the last call, and resets it.
local function take_dropped(stream)
  local state = stream_state_key(stream)
  if not has_type_of('HLEN', state) then return 0 end
  local dropped = tonumber(redis.call('HGET', state, 'x') or 0) or 0
  if dropped > 0 then redis.call('HDEL', state, 'x') end
  return dropped
end

-- Returns whether no publisher has served the group for the grace period. The period starts with the first call for it.
local function is_abandoned(state, group)
  local served_at = tonumber(redis.call('HGET', state, 'r:' .. group) or '')
  if not served_at then
    redis.call('HSET', state, 'r:' .. group, now)
    return false
  end
  return now - served_at > grace_ms
end

local expired = 0
if has_type_of('XLEN', dead_letters) then
  expired = redis.call('XTRIM', dead_letters, 'MINID', string.format('%.0f', now - age_max_ms))
end
local reply = {take_dropped(queue), take_dropped(dead_letters) + expired, 0}
if redis.call('EXISTS', queue) == 0 then return reply end
local state = stream_state_key(queue)
local missing = {}
for i = 3, #ARGV do
  missing[ARGV[i]] = true
  redis.call('HSET', state, 'r:' .. ARGV[i], now)
end
redis.call('PEXPIRE', queue, QUEUE_TTL_MS)
redis.call('PEXPIRE', state, QUEUE_TTL_MS)
local entries = redis.call('XLEN', queue)
local keep_from = nil
for _, info in ipairs(redis.call('XINFO', 'GROUPS', queue)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  local group, last_read = fields['name'], fields['last-delivered-id']
  if missing[group] then
    missing[group] = nil
    local pending = redis.call('XPENDING', queue, group)
    local next_unread = redis.call('XRANGE', queue, '(' .. last_read, '+', 'COUNT', 1)[1]
    local oldest = ''
    if pending[1] > 0 then
      oldest = pending[2]
    elseif next_unread then
      oldest = next_unread[1]
    end
    local unacknowledged = pending[1]
    -- Redis before 7 does not report the lag, and later versions do not always report it.
    if next_unread then unacknowledged = unacknowledged + (tonumber(fields['lag']) or 1) end
    -- Both numbers include entries that were dropped at the limit of the queue.
    unacknowledged = math.min(unacknowledged, entries)
    reply[#reply + 1] = group
    reply[#reply + 1] = unacknowledged
    reply[#reply + 1] = oldest
    -- The entry that was read last is dropped by the next call at the latest.
    local from = oldest
    if oldest == '' then from = last_read end
    if keep_from == nil or is_before(from, keep_from) then keep_from = from end
  elseif is_abandoned(state, group) then
    redis.call('XGROUP', 'DESTROY', queue, group)
    redis.call('HDEL', state, 'r:' .. group)
    reply[3] = reply[3] + 1
  end
end
-- A configured group that does not exist yet starts at the beginning, so nothing is dropped.
if next(missing) == nil and keep_from ~= nil then redis.call('XTRIM', queue, 'MINID', keep_from) end
return reply
