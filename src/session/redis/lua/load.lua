local record = open(KEYS[1])
if record.status ~= 'ok' then return refused(record) end
touch(KEYS[1], record)
local age = record.saved and math.max(now - record.saved, 0)
return {mark, 'ok', record.created or false, age or false, record.remember or false, record.flat}
