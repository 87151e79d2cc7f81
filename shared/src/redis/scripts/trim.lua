-- KEYS: queue
-- ARGV: names of the groups that count
-- Drops what all groups have done with. Returns how many entries are left.
local oldest = nil
local function before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  return tonumber(a_seq) < tonumber(b_seq)
end
local counts = {}
for _, group in ipairs(ARGV) do counts[group] = true end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
  if counts[fields['name']] then
    counts[fields['name']] = nil
    local done = fields['last-delivered-id']
    local pending = redis.call('XPENDING', KEYS[1], fields['name'])
    if pending[1] > 0 then
      done = pending[2]
      -- The oldest pending entry itself must stay.
    else
      -- What was delivered last is done, and may go.
      local ms, seq = string.match(done, '^(%d+)-(%d+)$')
      done = ms .. '-' .. string.format('%d', tonumber(seq) + 1)
    end
    if oldest == nil or before(done, oldest) then oldest = done end
  end
end
-- A group that counts and is not there yet has everything before it.
if next(counts) == nil and oldest ~= nil then redis.call('XTRIM', KEYS[1], 'MINID', oldest) end
return redis.call('XLEN', KEYS[1])
