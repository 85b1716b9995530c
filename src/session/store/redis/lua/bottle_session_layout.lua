-- The layout of Python's bottle-session: a hash of the user's fields and nothing else.
local function read_meta(record)
end

local function owned(record, owner)
  return true
end

local function status_of(record)
  return 'ok'
end

local function lifetime_of(record)
  return record.remember or idle
end

local function meta_pairs(record, owner)
  return {}
end
