-- KEYS: queue dead
-- ARGV: grace_ms age_max_ms, then the names of the groups of all configured endpoints
-- Drops entries that all of these groups have acknowledged, groups that no publisher has served for the grace period, and dead
-- letters over the age.
-- Returns three counts: the entries and the dead letters that were dropped undelivered since the last call, and the removed
-- groups. For each configured group that exists follow: name, entries not acknowledged, id of the oldest of them or ''.
local function is_before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if tonumber(a_ms) ~= tonumber(b_ms) then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end

local now = now_ms()

-- The number of entries of a stream that were dropped since the last call.
local function take_dropped(stream)
  if not is_good('HLEN', state_of(stream)) then return 0 end
  local dropped = tonumber(redis.call('HGET', state_of(stream), 'x') or 0) or 0
  if dropped > 0 then redis.call('HDEL', state_of(stream), 'x') end
  return dropped
end

-- Whether no publisher has served the group for the grace period, which begins when it is first seen here.
local function is_abandoned(state, name)
  local served = tonumber(redis.call('HGET', state, 'r:' .. name) or '')
  if not served then
    redis.call('HSET', state, 'r:' .. name, now)
    return false
  end
  return now - served > tonumber(ARGV[1])
end

local aged = 0
if is_good('XLEN', KEYS[2]) then
  aged = redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', now - tonumber(ARGV[2])))
end
local answer = {take_dropped(KEYS[1]), take_dropped(KEYS[2]) + aged, 0}
if redis.call('EXISTS', KEYS[1]) == 0 then return answer end
local state = state_of(KEYS[1])
local missing = {}
for i = 3, #ARGV do
  missing[ARGV[i]] = true
  redis.call('HSET', state, 'r:' .. ARGV[i], now)
end
redis.call('PEXPIRE', KEYS[1], QUEUE_TTL_MS)
redis.call('PEXPIRE', state, QUEUE_TTL_MS)
local entries = redis.call('XLEN', KEYS[1])
local keep_from = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
  local name, last = fields['name'], fields['last-delivered-id']
  if missing[name] then
    missing[name] = nil
    local pending = redis.call('XPENDING', KEYS[1], name)
    local next_one = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
    local oldest = ''
    if pending[1] > 0 then
      oldest = pending[2]
    elseif next_one then
      oldest = next_one[1]
    end
    local left = pending[1]
    -- Redis before 7 does not know the lag, and newer ones not always.
    if next_one then left = left + (tonumber(fields['lag']) or 1) end
    -- Both count entries that were dropped at the bound of the queue.
    left = math.min(left, entries)
    answer[#answer + 1] = name
    answer[#answer + 1] = left
    answer[#answer + 1] = oldest
    -- What was read last and is done with may go with the next round.
    local from = oldest
    if oldest == '' then from = last end
    if keep_from == nil or is_before(from, keep_from) then keep_from = from end
  elseif is_abandoned(state, name) then
    redis.call('XGROUP', 'DESTROY', KEYS[1], name)
    redis.call('HDEL', state, 'r:' .. name)
    answer[3] = answer[3] + 1
  end
end
-- A group that counts and is not there yet has everything before it.
if next(missing) == nil and keep_from ~= nil then redis.call('XTRIM', KEYS[1], 'MINID', keep_from) end
return answer
