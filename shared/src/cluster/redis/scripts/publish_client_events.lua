-- KEYS: queue and news of each message that goes to webhooks
-- ARGV: for each message: topic message count, then, if count is not 0, app and so many fields and values
-- Publishes client events and appends them to the queues of webhooks. Returns the number of messages.
-- A replica refuses this, and so nothing is published that only its own subscribers would get.
redis.call('PEXPIRE', KEYS[1], QUEUE_TTL_MS)
local key, at, published = 1, 1, 0
while at <= #ARGV do
  redis.call('PUBLISH', ARGV[at], ARGV[at + 1])
  local count = tonumber(ARGV[at + 2])
  at = at + 3
  if count > 0 then
    append(KEYS[key], QUEUE_MAX, QUEUE_BYTES_MAX, QUEUE_TTL_MS, unpack(ARGV, at + 1, at + count))
    redis.call('SADD', KEYS[key + 1], ARGV[at])
    key = key + 2
    at = at + 1 + count
  end
  published = published + 1
end
return published
