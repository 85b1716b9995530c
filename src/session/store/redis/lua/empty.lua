-- Removes the values of a live session (ARGV[1] is 1), or the values that a late save has added to a key without a session (0):
-- then the expiry of a tombstone there is restored. ARGV[2] is the time.
local lives = redis.call('HEXISTS', KEYS[1], '\0')
if lives == tonumber(ARGV[1]) then
  clear(KEYS[1], function(name)
    return lives == 0 and (string.byte(name) == 1 or name == '\0s' or name == '\0r')
  end)
  local tombstone = lives == 0 and redis.call('HGET', KEYS[1], '\0x')
  local till = tombstone and string.match(tombstone, '^%l(%w+)')
  if till then redis.call('PEXPIRE', KEYS[1], tonumber(till, 36) - tonumber(ARGV[2])) end
end
