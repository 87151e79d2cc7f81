-- Checks of the types of keys.

-- Returns whether a key is missing or has the type that `command` reads. The command must return a number.
local function has_type_of(command, key)
  return type(redis.pcall(command, key)) == 'number'
end
