-- Takes over the record that another layout has under KEYS[2], unless a session of ours is under KEYS[1].
if redis.call('HEXISTS', KEYS[1], '\0') == 1 or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local moved = redis.pcall('RENAME', KEYS[2], KEYS[1])
if moved.err then return moved end
redis.call('HSET', KEYS[1], '\0', ARGV[1], '\0s', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
