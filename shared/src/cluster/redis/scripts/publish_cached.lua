-- KEYS: meta and kept, for each event that is kept
-- ARGV: for each event: topic message keep_ms stamp except; where keep_ms is 0 the message is whole, else it is the frame
-- Returns the number of events.
-- All is kept before anything is published, so that what cannot be kept leaves nothing half done.
local messages = {}
local key = 0
for i = 1, #ARGV, 5 do
  if ARGV[i + 2] ~= '0' then
    redis.call('HLEN', KEYS[key + 1])
    key = key + 2
  end
end
key = 0
for i = 1, #ARGV, 5 do
  local message, keep_ms = ARGV[i + 1], ARGV[i + 2]
  if keep_ms ~= '0' then
    local meta, kept = KEYS[key + 1], KEYS[key + 2]
    key = key + 2
    local place = epoch_of(meta, KEPT) .. ' ' .. redis.call('HINCRBY', meta, KEPT.sequence, 1)
    redis.call('SET', kept, place .. '\n' .. message, 'PX', keep_ms)
    message = '1 K ' .. place .. ' ' .. ARGV[i + 3] .. ' ' .. ARGV[i + 4] .. '\n' .. message
  end
  messages[#messages + 1] = message
end
for i, message in ipairs(messages) do redis.call('PUBLISH', ARGV[5 * i - 4], message) end
return #messages
