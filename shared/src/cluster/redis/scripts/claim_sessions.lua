-- Claims fallback sessions for a gateway, unless another gateway has them.
--
--     KEYS[1..] sessions     strings: address of the gateway that has the session
--     ARGV[1]   address      address of the gateway
--     ARGV[2]   ttl_ms       time to live of a claim, in milliseconds
--     ARGV[3]   failed_peer  address of a gateway that does not have the sessions any more, or empty
--
-- Returns the address of the gateway that has each session.
local address, ttl_ms, failed_peer = ARGV[1], ARGV[2], ARGV[3]

local owners = {}
for i, session in ipairs(KEYS) do
  local owner = redis.call('GET', session)
  if not owner or owner == address or owner == failed_peer then
    redis.call('SET', session, address, 'PX', ttl_ms)
    owner = address
  end
  owners[i] = owner
end
return owners
