-- Writes a tombstone to a key that is free, for `lifetime` milliseconds. An error is ignored: the session is gone from the key
-- all the same.
local function leave_tombstone(key, tombstone, lifetime)
  local reply = redis.pcall('HSET', key, '\0x', tombstone)
  if type(reply) ~= 'table' then reply = redis.pcall('PEXPIRE', key, lifetime) end
  if type(reply) == 'table' then redis.pcall('UNLINK', key) end
end

-- Returns the key to which the session of a tombstone has moved, or nil; whether the id is in its grace period; and whether it
-- is or was in one.
local function next_key(tombstone, now)
  local kind, till, ends, to = string.match(tombstone or '', '^(%l)(%w+)%.(%w+)%.([^.]*)%.')
  local function over(time) return tonumber(time, 36) <= tonumber(now) end
  if not kind or to == '' or over(till) then return nil, false, false end
  if ends ~= '0' and over(ends) then return nil, false, true end
  return to, kind == 'g', kind == 'g'
end
