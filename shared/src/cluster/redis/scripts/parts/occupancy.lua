-- Consequences of a changed subscription count.

-- Updates the set of occupied channels, and publishes and enqueues the change. announce: whether the channel publishes
-- its counts. before, after: the subscriptions on all nodes.
local function count_changed(webhooks, counts, occupied, topic, channel, stamp_us, is_user, announce, before, after)
  if after == 0 then
    redis.call('DEL', counts)
    redis.call('SREM', occupied, channel)
  else
    redis.call('SADD', occupied, channel)
  end
  if is_user then
    if (before == 0) ~= (after == 0) then
      redis.call('PUBLISH', topic, envelope_without_position('O', stamp_us, after > 0 and '1' or '0'))
    end
    return
  end
  if before == 0 and after > 0 then enqueue_begin(webhooks, CHANNEL_OCCUPIED, CHANNEL_VACATED, channel) end
  if announce and before ~= after then
    redis.call('PUBLISH', topic, envelope_without_position('C', stamp_us, after))
    enqueue_count(webhooks, channel, after)
  end
  if before > 0 and after == 0 then hold_end(webhooks, CHANNEL_VACATED, CHANNEL_OCCUPIED, channel) end
end
