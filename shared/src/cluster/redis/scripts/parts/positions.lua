-- Epochs and sequences of a channel. They are fields of the hash `meta`.

-- The fields of the sequence of member changes.
local MEMBER_CHANGES = {epoch = 'e', sequence = 's', server = 'er'}

-- The fields of the sequence of cached events.
local CACHED_EVENTS = {epoch = 'ke', sequence = 'ks', server = 'kr'}

-- The largest epoch or sequence that is accepted. Lua numbers above 2^53 are not exact.
local COUNTER_MAX = 9000000000000000

local server_id

-- Returns the run id of the server process that executes this script. It changes with a restart or a failover. If the
-- user may not run INFO, all servers have the same id.
local function current_server()
  if not server_id then
    local info = redis.pcall('INFO', 'server')
    server_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  end
  return server_id
end

local function is_counter(text)
  return text and string.match(text, '^%d+$') and tonumber(text) <= COUNTER_MAX
end

-- Restarts a sequence under a later epoch and returns the epoch. Epochs come from the clock. If the clock was set back,
-- the epoch is the last one plus 1.
local function begin_epoch(meta, fields)
  local time = redis.call('TIME')
  local epoch = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local last = redis.call('HGET', meta, fields.epoch)
  if is_counter(last) and tonumber(last) >= epoch then epoch = tonumber(last) + 1 end
  epoch = string.format('%.0f', epoch)
  redis.call('HSET', meta, fields.epoch, epoch, fields.sequence, '0', fields.server, current_server())
  redis.call('PEXPIRE', meta, CHANNEL_META_TTL_MS)
  return epoch
end

-- Returns the epoch of a sequence. Restarts the sequence if it is missing or unreadable, or if another server process
-- incremented it last. A promoted replica, or a server that loaded an older state, may lack the end of the sequence.
-- Without a restart it would assign a position twice.
local function epoch_of(meta, fields)
  local epoch = redis.call('HGET', meta, fields.epoch)
  if not is_counter(epoch) or not is_counter(redis.call('HGET', meta, fields.sequence))
    or redis.call('HGET', meta, fields.server) ~= current_server() then
    epoch = begin_epoch(meta, fields)
  end
  redis.call('PEXPIRE', meta, CHANNEL_META_TTL_MS)
  return epoch
end

-- Returns the next position of a sequence: epoch and sequence with a space between them.
local function next_position(meta, fields)
  return epoch_of(meta, fields) .. ' ' .. redis.call('HINCRBY', meta, fields.sequence, 1)
end
