-- Publishes client events and appends them to the queues of webhooks. The first command is a write, so a replica
-- refuses the script. A replica would publish the events only to its own subscribers.
--
-- KEYS: two for each event that is appended
--     webhook_queue  stream
--     ready_apps     set: apps with new webhook events
-- ARGV: for each event
--     topic          topic of the channel
--     message        the message
--     count          number of the fields and values below, or 0
--     app            app id; only if count is not 0
--     fields         fields and values of the webhook event; count of them
--
-- Returns the number of events.
redis.call('PEXPIRE', KEYS[1], QUEUE_TTL_MS)
local key, i, published = 1, 1, 0
while i <= #ARGV do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
  local count = tonumber(ARGV[i + 2])
  i = i + 3
  if count > 0 then
    enqueue(KEYS[key], KEYS[key + 1], ARGV[i], unpack(ARGV, i + 1, i + count))
    key = key + 2
    i = i + 1 + count
  end
  published = published + 1
end
return published
