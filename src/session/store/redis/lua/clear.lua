-- Removes the values of a record, and of the store's own fields these.
local function clear(key, own)
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.byte(name) ~= 0 or own[name] then redis.call('HDEL', key, name) end
  end
end
