-- Ends the sessions under KEYS, and writes the tombstone ARGV[1] for ARGV[2] milliseconds to the first 1000 of them. Returns
-- how many there were.
local ended = 0
for _, key in ipairs(KEYS) do
  if redis.call('HEXISTS', key, '\0') == 1 then
    local removed = redis.pcall('UNLINK', key)
    if type(removed) == 'table' then return removed end
    ended = ended + 1
    if ended <= 1000 then leave_tombstone(key, ARGV[1], ARGV[2]) end
  end
end
return ended
