-- Reads webhook events for one endpoint. Events that were read and not acknowledged are returned before new ones: their
-- dispatcher crashed, or the reply was lost.
--
--     KEYS[1] lease        string: id of the dispatcher that has the partition
--     KEYS[2] queue        stream
--     ARGV[1] dispatcher   id of the dispatcher
--     ARGV[2] group        consumer group of the endpoint
--     ARGV[3] consumer     name of the consumer, which all dispatchers share
--     ARGV[4] after        stream id; unacknowledged events up to it are not returned
--     ARGV[5] entries_max  number of events
--
-- Returns {1 or 0: whether the dispatcher has the partition, ids and fields of the events}.
local lease, queue = KEYS[1], KEYS[2]
local dispatcher, group, consumer, after, entries_max = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('GET', lease) ~= dispatcher then return {0, {}} end
local function read(from)
  local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', entries_max, 'STREAMS', queue, from)
  if reply and reply.err then
    if not string.find(reply.err, 'NOGROUP', 1, true) then return reply end
    -- The group starts at the beginning of the stream, so events that were added before it are sent too.
    redis.call('XGROUP', 'CREATE', queue, group, '0', 'MKSTREAM')
    return {}
  end
  return reply and reply[1] and reply[1][2] or {}
end
redis.call('HSET', stream_state_key(queue), 'r:' .. group, now_ms())
redis.call('PEXPIRE', stream_state_key(queue), QUEUE_TTL_MS)
local entries = read(after)
if entries.err then return entries end
if #entries == 0 then entries = read('>') end
if entries.err then return entries end
return {1, entries}
