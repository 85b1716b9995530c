-- Takes over the record that the bottle-session layout has under KEYS[2], unless ours is already there.
-- An error is returned: to read "no session" where only the move failed would log the user out.
if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  local count = redis.pcall('HLEN', KEYS[2])
  if type(count) == 'table' then return count end
  local moved = redis.pcall('RENAME', KEYS[2], KEYS[1])
  if moved.err then return moved end
  -- RENAME needs no memory, and after it a script may write although there is none left.
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', KEYS[1], '\0', '1:' .. now .. ':' .. now .. '::' .. ARGV[1])
end

