local record = open(KEYS[1])
if record.status ~= 'ok' then return refused(record) end
local absent = record.fields[ARGV[6]] == nil
if absent then
  record.fields[ARGV[6]] = ARGV[7]
  if too_large(record.fields) then return {mark, 'oversized'} end
  local error = failed('HSET', KEYS[1], ARGV[6], ARGV[7])
  if error then return error end
end
touch(KEYS[1], record)
return {mark, 'ok', absent and 1 or 0}
