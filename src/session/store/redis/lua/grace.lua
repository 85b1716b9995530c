-- Keeps the tombstone of an id that is in its grace period at the time ARGV[1] until ARGV[2], which is in ARGV[3] milliseconds,
-- and ends that period at ARGV[4] unless it ends earlier; ARGV[4] is 0 if it stays open. Returns 1, or 0 if the id is in none.
local tombstone = redis.call('HGET', KEYS[1], '\0x')
local _, is_in_grace = next_key(tombstone, ARGV[1])
if not is_in_grace then return 0 end
local ends, rest = string.match(tombstone, '^g%w+%.(%w+)(%..*)$')
-- A grace period that has an end is not extended.
local is_earlier = ends ~= '0' and (ARGV[4] == '0' or tonumber(ends, 36) <= tonumber(ARGV[4], 36))
if is_earlier then return 1 end
local written = redis.pcall('HSET', KEYS[1], '\0x', 'g' .. ARGV[2] .. '.' .. ARGV[4] .. rest)
if type(written) ~= 'table' then written = redis.pcall('PEXPIRE', KEYS[1], ARGV[3]) end
return type(written) == 'table' and written or 1
