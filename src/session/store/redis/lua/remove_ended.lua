-- Removes those of the sessions in ARGV from an index that are marked as ended.
local index = KEYS[1]
local generation = redis.call('HGET', index, 'generation') or '0'
for _, name in ipairs(ARGV) do
  local held = redis.call('HGET', index, name)
  if held and string.match(held, '^%S+') ~= generation then redis.call('HDEL', index, name) end
end
return 1
