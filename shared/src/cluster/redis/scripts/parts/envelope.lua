-- Messages on the bus, in the format of envelope/wire.rs.

-- The text for a position or a socket id that is absent.
local NONE = '-'

-- Returns a message. position: epoch and sequence with a space between them. stamp_us: the time of publication in
-- microseconds since 1970. except: the socket that the event is not sent to.
local function envelope(kind, position, stamp_us, except, payload)
  return ENVELOPE_VERSION .. ' ' .. kind .. ' ' .. position .. ' ' .. stamp_us .. ' ' .. except .. '\n' .. payload
end

-- Returns a message that has no position.
local function envelope_without_position(kind, stamp_us, payload)
  return envelope(kind, NONE .. ' ' .. NONE, stamp_us, NONE, payload)
end
