-- Subscription counts of a channel. The hash `counts` has one field per node.

-- Returns the subscriptions on all nodes.
local function total(counts)
  local sum = 0
  local all = redis.call('HGETALL', counts)
  for i = 1, #all, 2 do
    -- A value that is not a number counts as 0. An error would block every further subscription to the channel.
    if all[i] ~= COUNTS_ANNOUNCED_FIELD then sum = sum + (tonumber(all[i + 1]) or 0) end
  end
  return sum
end
