-- KEYS: lease queue
-- ARGV: sender group consumer after most
-- Returns {whether the sender leads, ids and fields}. First come those that were read and not done with behind the place
-- `after`: read by a sender that died, or in an answer that was lost. Then those that nobody has read.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, {}} end
local function read(from)
  local answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[5], 'STREAMS', KEYS[2], from)
  if answer and answer.err then
    if not string.find(answer.err, 'NOGROUP', 1, true) then return answer end
    -- From the beginning of the stream: what came before the first reader is to be told too.
    redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
    return {}
  end
  return answer and answer[1] and answer[1][2] or {}
end
redis.call('HSET', state_of(KEYS[2]), 'r:' .. ARGV[2], now_ms())
redis.call('PEXPIRE', state_of(KEYS[2]), QUEUE_TTL_MS)
local entries = read(ARGV[4])
if entries.err then return entries end
if #entries == 0 then entries = read('>') end
if entries.err then return entries end
return {1, entries}
