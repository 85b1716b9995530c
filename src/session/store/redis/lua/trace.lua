-- Leaves something under a key that is free, for so many milliseconds; nothing where that may not be written, as the
-- session is gone from there all the same.
local function leave(key, trace, lifetime)
  local reply = redis.pcall('HSET', key, '\0x', trace)
  if type(reply) ~= 'table' then reply = redis.pcall('PEXPIRE', key, lifetime) end
  if type(reply) == 'table' then redis.pcall('UNLINK', key) end
end

-- Where the session has moved that left this, as long as that is known, whether the id is in its grace period, and whether
-- it has, or had, one.
local function leads(trace, now)
  local kind, till, ends, to = string.match(trace or '', '^(%l)(%w+)%.(%w+)%.([^.]*)%.')
  local function over(time) return tonumber(time, 36) <= tonumber(now) end
  if not kind or to == '' or over(till) then return nil, false, false end
  if ends ~= '0' and over(ends) then return nil, false, true end
  return to, kind == 'g', kind == 'g'
end
