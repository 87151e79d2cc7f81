-- Webhook events of changes. An event has a kind, which is one letter, a channel and further fields.
--
-- channel_vacated and member_removed are held for a few seconds. If the channel is occupied again or the member joins
-- again in that time, neither event is enqueued. Large subscription counts are also held, so that one event reports
-- many changes. A held event is a member of the sorted set `holds`. Its score is the time at which it is due, in
-- milliseconds since 1970.

-- Returns the name of a held event. User ids may contain any character, so they are last.
local function held_event(app, kind, channel, user)
  return kind .. '\n' .. app .. '\n' .. channel .. '\n' .. (user or '')
end

-- Enqueues held events that are due, up to `events_max`. Every change calls this first, because an event that is due
-- cannot be canceled any more.
local function enqueue_due(partition_prefix, ready_apps, holds, events_max)
  for _, event in ipairs(redis.call('ZRANGEBYSCORE', holds, '-inf', now_ms(), 'LIMIT', 0, events_max)) do
    redis.call('ZREM', holds, event)
    local kind, app, channel, user = string.match(event, '^(%a)\n([^\n]*)\n([^\n]*)\n(.*)$')
    local queue = webhook_queue_key(partition_prefix, app or '')
    -- An event is lost if the key of its queue has the wrong type.
    if kind and has_type_of('XLEN', queue) and has_type_of('HLEN', stream_state_key(queue)) then
      if kind == CHANNEL_VACATED then
        enqueue(queue, ready_apps, app, 'k', kind, 'c', channel)
      elseif kind == MEMBER_REMOVED then
        enqueue(queue, ready_apps, app, 'k', kind, 'c', channel, 'u', user)
      elseif kind == SUBSCRIPTION_COUNT then
        local counts = subscription_counts_key(partition_prefix, app, channel)
        local count = has_type_of('HLEN', counts) and total(counts) or 0
        if count > 0 then enqueue(queue, ready_apps, app, 'k', kind, 'c', channel, 'n', count) end
      end
    end
  end
end

-- Returns what the functions below need to enqueue events of an app.
--
-- kinds: the kinds that an endpoint of the app requests, or ''. is_new: '0' if the node reports again what it had
-- reported before. The last arguments are tombstones of the channel under earlier ids of the node. A tombstone of '1'
-- shows that a sweep has removed the node from the channel. The repeated report is then new.
local function webhooks_of(app, kinds, partition_prefix, is_new, queue, ready_apps, holds, ...)
  local webhooks = {app = app, kinds = kinds, queue = queue, ready_apps = ready_apps, holds = holds}
  webhooks.is_new = is_new == '1'
  for _, tombstone in ipairs({...}) do
    if redis.pcall('GET', tombstone) == '1' then webhooks.is_new = true end
  end
  if kinds ~= '' then
    -- Each command fails if its key has the wrong type. Nothing has been changed yet.
    redis.call('XLEN', queue)
    redis.call('HLEN', stream_state_key(queue))
    redis.call('SCARD', ready_apps)
    redis.call('ZCARD', holds)
    enqueue_due(partition_prefix, ready_apps, holds, DUE_PER_CHANGE_MAX)
  end
  return webhooks
end

local function requests(webhooks, kind)
  return string.find(webhooks.kinds, kind, 1, true) ~= nil
end

local function enqueue_event(webhooks, kind, channel, ...)
  enqueue(webhooks.queue, webhooks.ready_apps, webhooks.app, 'k', kind, 'c', channel, ...)
end

-- Enqueues channel_occupied or member_added. If the opposite event is held, cancels it and enqueues nothing.
local function enqueue_begin(webhooks, kind, end_kind, channel, user)
  if webhooks.kinds == '' then return end
  local held_ends = redis.call('ZREM', webhooks.holds, held_event(webhooks.app, end_kind, channel, user),
    held_event(webhooks.app, string.lower(end_kind), channel, user))
  if held_ends > 0 or not webhooks.is_new or not requests(webhooks, kind) then return end
  if user then enqueue_event(webhooks, kind, channel, 'u', user) else enqueue_event(webhooks, kind, channel) end
end

-- Holds channel_vacated or member_removed. If endpoints request only the opposite kind, the event is held under the
-- lower-case letter. It is then never enqueued, but a return within the hold is not enqueued either.
local function hold_end(webhooks, kind, begin_kind, channel, user)
  local letter = kind
  if not requests(webhooks, kind) then
    if not requests(webhooks, begin_kind) then return end
    letter = string.lower(kind)
  end
  redis.call('ZADD', webhooks.holds, now_ms() + HOLD_MS, held_event(webhooks.app, letter, channel, user))
end

-- Enqueues a subscription count, or holds it if the count is large. A count of 0 is not enqueued, because
-- channel_vacated reports it.
local function enqueue_count(webhooks, channel, count)
  if not requests(webhooks, SUBSCRIPTION_COUNT) then return end
  local event = held_event(webhooks.app, SUBSCRIPTION_COUNT, channel)
  if count > COUNT_IMMEDIATE_MAX then
    redis.call('ZADD', webhooks.holds, 'NX', now_ms() + COUNT_INTERVAL_MS, event)
  else
    redis.call('ZREM', webhooks.holds, event)
    if count > 0 then enqueue_event(webhooks, SUBSCRIPTION_COUNT, channel, 'n', count) end
  end
end
