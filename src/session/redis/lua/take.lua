local record = open(KEYS[1])
if record.status ~= 'ok' then return refused(record) end
local values = {}
for at = 6, #ARGV do
  local name = ARGV[at]
  values[#values + 1] = record.fields[name] or false
  if record.fields[name] then redis.call('HDEL', KEYS[1], name) end
  record.fields[name] = nil
end
touch(KEYS[1], record)
return {mark, 'ok', values}
