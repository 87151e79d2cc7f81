-- KEYS: queue
-- ARGV: names of the groups that count
-- Drops what all of them are done with. Returns for each group that is there: name, entries not done with, id of the oldest
-- of them or ''.
local function is_before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if tonumber(a_ms) ~= tonumber(b_ms) then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end

local answer = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return answer end
local missing = {}
for _, group in ipairs(ARGV) do missing[group] = true end
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
    answer[#answer + 1] = name
    answer[#answer + 1] = left
    answer[#answer + 1] = oldest
    -- What was read last and is done with may go with the next round.
    local from = oldest
    if oldest == '' then from = last end
    if keep_from == nil or is_before(from, keep_from) then keep_from = from end
  end
end
-- A group that counts and is not there yet has everything before it.
if next(missing) == nil and keep_from ~= nil then redis.call('XTRIM', KEYS[1], 'MINID', keep_from) end
return answer
