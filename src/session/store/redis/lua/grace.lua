-- Has an id that is in its grace period at ARGV[1] known until ARGV[2], which is in ARGV[3] milliseconds, and ends that period
-- at ARGV[4] unless it ends earlier; ARGV[4] is 0 where it stays open. The answer is 1, or 0 where the id is in none.
local trace = redis.call('HGET', KEYS[1], '\0x')
local _, is_in_grace = leads(trace, ARGV[1])
if not is_in_grace then return 0 end
local ends, rest = string.match(trace, '^g%w+%.(%w+)(%..*)$')
-- One that is to end, and be known for long behind that, is not put off.
local is_earlier = ends ~= '0' and (ARGV[4] == '0' or tonumber(ends, 36) <= tonumber(ARGV[4], 36))
if is_earlier then return 1 end
local written = redis.pcall('HSET', KEYS[1], '\0x', 'g' .. ARGV[2] .. '.' .. ARGV[4] .. rest)
if type(written) ~= 'table' then written = redis.pcall('PEXPIRE', KEYS[1], ARGV[3]) end
return type(written) == 'table' and written or 1
