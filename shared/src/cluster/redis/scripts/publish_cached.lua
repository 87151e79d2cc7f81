-- Publishes events, at least one of which is cached. Nothing is published if an event cannot be cached.
--
-- KEYS: two for each cached event
--     meta       hash: epochs and sequences
--     cached     string: the cached event of the channel
-- ARGV: five for each event
--     topic      topic of the channel
--     message    the whole message; for a cached event only its payload
--     cache_ms   time to cache the event, in milliseconds, or 0
--     stamp_us   time of publication, in microseconds since 1970
--     except     socket id that the event is not sent to, or -
--
-- Returns the number of events.
local messages = {}
local key = 0
for i = 1, #ARGV, 5 do
  if ARGV[i + 2] ~= '0' then
    -- Fails if the key has the wrong type. Nothing has been changed yet.
    redis.call('HLEN', KEYS[key + 1])
    key = key + 2
  end
end
key = 0
for i = 1, #ARGV, 5 do
  local message, cache_ms = ARGV[i + 1], ARGV[i + 2]
  if cache_ms ~= '0' then
    local meta, cached = KEYS[key + 1], KEYS[key + 2]
    key = key + 2
    local position = next_position(meta, CACHED_EVENTS)
    redis.call('SET', cached, position .. '\n' .. message, 'PX', cache_ms)
    message = envelope('K', position, ARGV[i + 3], ARGV[i + 4], message)
  end
  messages[#messages + 1] = message
end
for i, message in ipairs(messages) do redis.call('PUBLISH', ARGV[5 * i - 4], message) end
return #messages
