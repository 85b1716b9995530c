-- Ends the session under KEYS[1], or KEYS[2] in the layout that this one takes over from, and writes the tombstone ARGV[2] for
-- ARGV[3] milliseconds. Returns 1, also to a repetition, which finds its mark ARGV[4] there; else the name of the key to which
-- the session has moved, if its tombstone has not expired at the time ARGV[1]; else 0.
local proof, tombstone = unpack(redis.call('HMGET', KEYS[1], '\0', '\0x'))
local former = KEYS[2] and redis.pcall('UNLINK', KEYS[2]) or 0
if type(former) == 'table' then return former end
if not proof and former == 0 and tombstone then
  local is_mine = string.sub(tombstone, -#ARGV[4] - 1) == '.' .. ARGV[4]
  return is_mine and 1 or next_key(tombstone, ARGV[1]) or 0
end
local removed = redis.pcall('UNLINK', KEYS[1])
if type(removed) == 'table' then return removed end
-- Without a proof it was what a late save has left.
if not proof and former == 0 then return 0 end
leave_tombstone(KEYS[1], ARGV[2], ARGV[3])
return 1
