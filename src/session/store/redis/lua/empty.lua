-- Empties a session that lives (ARGV[1] is 1), or removes what a late save has left of one that does not (0).
local lives = redis.call('HEXISTS', KEYS[1], '\0')
if lives == tonumber(ARGV[1]) then
  clear(KEYS[1], lives == 1 and {} or {['\0s'] = true, ['\0r'] = true})
end
