-- Removes the values of a record, and of the fields that are the store's and the plugin's own those that `ends` says.
local function clear(key, ends)
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if (string.byte(name) or 2) > 1 or ends(name) then redis.call('HDEL', key, name) end
  end
end
