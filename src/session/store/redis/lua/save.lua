-- All four actions in one script: a batch is either known to Redis as a whole or, after SCRIPT FLUSH, not
-- at all, and so it always runs in its order.
-- Arguments: action, the new id's mark, own idle limit, whether all fields go first, the number of fields
-- to set, these as pairs, and the keys to remove.
local to_mark, remember, cleared = ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
local FIRST = 11
local last_set = FIRST - 1 + 2 * tonumber(ARGV[10])

local function changed(fields)
  local after = {}
  if not cleared then
    for name, value in pairs(fields) do after[name] = value end
  end
  for at = FIRST, last_set, 2 do after[ARGV[at]] = ARGV[at + 1] end
  for at = last_set + 1, #ARGV do after[ARGV[at]] = nil end
  return after
end

-- Sets before it removes: where memory is short the first command fails, and then nothing has changed.
local function write(key, record, after, owner)
  record.remember = remember or record.remember
  local to_set, to_remove = meta_pairs(record, owner), {}
  for at = FIRST, last_set do to_set[#to_set + 1] = ARGV[at] end
  for name in pairs(record.fields) do
    if after[name] == nil then to_remove[#to_remove + 1] = name end
  end
  return failed_with('HSET', key, to_set)
    or failed_with('HDEL', key, to_remove)
    or failed('PEXPIRE', key, string.format('%.0f', lifetime_of(record)))
    or {mark, 'stored'}
end

local action = {}

function action.create()
  local record = read(KEYS[1])
  if record.err then return record end
  local after = changed({})
  if record.status ~= 'gone' then
    -- Only its maker knows a fresh id, so a record with these very fields is a repetition.
    local same = not record.status and owned(record, mark)
      and measure(record.fields) == measure(after)
    for name, value in pairs(after) do same = same and record.fields[name] == value end
    return {mark, same and 'stored' or 'taken'}
  end
  if too_large(after) then return {mark, 'oversized'} end
  return write(KEYS[1], {created = now, fields = {}}, after, mark)
end

function action.update()
  local record = open(KEYS[1])
  if record.status ~= 'ok' then return refused(record) end
  local after = changed(record.fields)
  if too_large(after) then return {mark, 'oversized'} end
  return write(KEYS[1], record, after, mark)
end

function action.rotate()
  local record = open(KEYS[1])
  if record.err then return record end
  local target = read(KEYS[2])
  if target.err then return target end
  if record.status == 'gone' and not target.status and owned(target, to_mark) then
    -- Only this move knows the new id, so what is there is what it wrote.
    return {mark, 'stored'}
  end
  if record.status ~= 'ok' then return refused(record) end
  if target.status ~= 'gone' then return {mark, 'taken'} end
  local after = changed(record.fields)
  if too_large(after) then return {mark, 'oversized'} end
  -- The old id is dead in the former layout, too, where a late request of another program may have left one.
  return failed('RENAME', KEYS[1], KEYS[2]) or KEYS[3] and failed('UNLINK', KEYS[3])
    or write(KEYS[2], record, after, to_mark)
end

function action.destroy()
  return failed('UNLINK', unpack(KEYS)) or {mark, 'stored'}
end

return action[ARGV[6]]()
