-- Streams of webhook events: the queue and the dead letters of an app in a partition. The state of a stream is a hash:
-- b: bytes that were ever added. x: entries that were dropped since the last report. r:LABEL: the time at which a
-- publisher last served this endpoint, in milliseconds since 1970.

-- Returns the value of a field of an entry, or nil.
local function field_of(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- Drops the oldest entries of a stream until it is within its limits. total_bytes: the bytes that were ever added. The
-- field b of an entry is this total when the entry was added. The difference is the size of the later entries.
local function shorten(stream, entries_max, bytes_max, total_bytes)
  local excess = redis.call('XLEN', stream) - entries_max
  local from, keep_from, dropped, first_unmeasured, unmeasured = '-', nil, 0, nil, 0
  repeat
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 64)
    for _, entry in ipairs(page) do
      local total_with_entry = tonumber(field_of(entry, 'b'))
      if excess > 0 then
        excess = excess - 1
        dropped = dropped + 1
      elseif not total_with_entry then
        -- Entries without the field b are kept if the next entry that has it is kept.
        first_unmeasured = first_unmeasured or entry[1]
        unmeasured = unmeasured + 1
      elseif total_bytes - total_with_entry < bytes_max then
        keep_from = first_unmeasured or entry[1]
        break
      else
        dropped = dropped + unmeasured + 1
        first_unmeasured, unmeasured = nil, 0
      end
      from = '(' .. entry[1]
    end
  until keep_from or #page == 0
  if dropped == 0 or not keep_from then return end
  redis.call('XTRIM', stream, 'MINID', keep_from)
  redis.call('HINCRBY', stream_state_key(stream), 'x', dropped)
end

-- Appends an entry to a stream and keeps the stream within its limits. The last arguments are fields and values.
local function append(stream, entries_max, bytes_max, ttl_ms, ...)
  local bytes = QUEUE_ENTRY_BYTES
  for _, text in ipairs({...}) do bytes = bytes + #tostring(text) end
  local state = stream_state_key(stream)
  local total_bytes = redis.call('HINCRBY', state, 'b', bytes)
  redis.call('XADD', stream, '*', 'b', string.format('%.0f', total_bytes), ...)
  redis.call('PEXPIRE', stream, ttl_ms)
  redis.call('PEXPIRE', state, ttl_ms)
  if math.floor(total_bytes / QUEUE_CHECK_BYTES) ~= math.floor((total_bytes - bytes) / QUEUE_CHECK_BYTES) then
    shorten(stream, entries_max, bytes_max, total_bytes)
  end
end

-- Appends a webhook event to the queue of an app. The last arguments are fields and values.
local function enqueue(queue, ready_apps, app, ...)
  append(queue, QUEUE_MAX, QUEUE_BYTES_MAX, QUEUE_TTL_MS, ...)
  redis.call('SADD', ready_apps, app)
end
