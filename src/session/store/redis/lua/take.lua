local record = open(KEYS[1])
if record.status ~= 'ok' then return refused(record) end
local values = {}
for at = 6, #ARGV do
  local name = ARGV[at]
  values[#values + 1] = record.fields[name] or false
  local error = record.fields[name] and failed('HDEL', KEYS[1], name)
  if error then return error end
  record.fields[name] = nil
end
touch(KEYS[1], record)
return {mark, 'ok', values}
