-- Removes those of the sessions in ARGV from an index that are marked as ended.
local index = KEYS[1]
local epoch = redis.call('HGET', index, 'epoch') or '0'
for _, name in ipairs(ARGV) do
  local held = redis.call('HGET', index, name)
  if held and string.match(held, '^%S+') ~= epoch then redis.call('HDEL', index, name) end
end
return 1
