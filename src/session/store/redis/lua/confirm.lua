-- Says whether the session ARGV[1] is registered still and not being ended; then the one that it was before, ARGV[2],
-- leaves the index, which is kept for at least ARGV[3] milliseconds, as the record may have another limit than it was
-- registered with.
local index = KEYS[1]
local held = redis.call('HGET', index, ARGV[1])
if not held or string.match(held, '^%S+') ~= (redis.call('HGET', index, 'generation') or '0') then return 0 end
if redis.call('PTTL', index) < tonumber(ARGV[3]) then redis.call('PEXPIRE', index, ARGV[3]) end
if ARGV[2] ~= '' then redis.call('HDEL', index, ARGV[2]) end
return 1
