-- Moves a webhook event of one endpoint to the dead letters, unless it was acknowledged.
--
--     KEYS[1]   queue         stream
--     KEYS[2]   dead_letters  stream
--     ARGV[1]   group         consumer group of the endpoint
--     ARGV[2]   id            stream id of the event
--     ARGV[3]   entries_max   number of dead letters
--     ARGV[4]   bytes_max     bytes of dead letters
--     ARGV[5]   age_max_ms    time to live of the dead letters, in milliseconds
--     ARGV[6..]               fields and values of the dead letter
--
-- Returns 1, or 0 if the event was acknowledged already.
local queue, dead_letters = KEYS[1], KEYS[2]
local group, id = ARGV[1], ARGV[2]
local entries_max, bytes_max, age_max_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- Each command fails if its key has the wrong type. Nothing has been changed yet.
redis.call('XLEN', dead_letters)
redis.call('HLEN', stream_state_key(dead_letters))
if redis.call('XACK', queue, group, id) == 0 then return 0 end
append(dead_letters, entries_max, bytes_max, age_max_ms, unpack(ARGV, 6))
return 1
