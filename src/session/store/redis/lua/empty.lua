-- Empties a session that lives (ARGV[1] is 1), or removes what a late save has left of one that does not (0): then what the
-- session itself has left ends when it is to end, by the time ARGV[2].
local lives = redis.call('HEXISTS', KEYS[1], '\0')
if lives == tonumber(ARGV[1]) then
  clear(KEYS[1], function(name)
    return lives == 0 and (string.byte(name) == 1 or name == '\0s' or name == '\0r')
  end)
  local trace = lives == 0 and redis.call('HGET', KEYS[1], '\0x')
  local till = trace and string.match(trace, '^%l(%w+)')
  if till then redis.call('PEXPIRE', KEYS[1], tonumber(till, 36) - tonumber(ARGV[2])) end
end
