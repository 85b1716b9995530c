-- The default layout: a hash of the user's fields, and one more under a key no user can have:
-- version, time of creation and of the last save in ms, own idle limit in ms or nothing, owner's mark.
local META = '\0'

local function read_meta(record)
  local text = record.fields[META]
  if not text then return end
  record.fields[META] = nil
  local created, saved, remember, owner = string.match(text, '^1:(%d+):(%d+):(%d*):(%x+)$')
  if not created then return end
  record.created, record.saved = tonumber(created), tonumber(saved)
  record.remember, record.owner = tonumber(remember), owner
end

local function owned(record, owner)
  return record.owner == owner
end

local function status_of(record)
  if not record.owner then return 'damaged' end
  if not owned(record, mark) then return 'foreign' end
  if absolute and record.created + absolute <= now then return 'expired' end
  return 'ok'
end

local function lifetime_of(record)
  local left = record.remember or idle
  if absolute then left = math.min(left, record.created + absolute - now) end
  return left
end

local function meta_pairs(record, owner)
  local text = string.format('1:%.0f:%.0f:%s:%s', record.created, now,
    record.remember and string.format('%.0f', record.remember) or '', owner)
  return {META, text}
end
