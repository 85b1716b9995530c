-- Runs commands on a record if it is there (ARGV[1] is 1), or if it is not (0).
if redis.call('EXISTS', KEYS[1]) ~= tonumber(ARGV[1]) then return false end
local replies = run(KEYS[1], 2)
-- Without its end it would stay for ever.
if replies.err and ARGV[1] == '0' then redis.call('UNLINK', KEYS[1]) end
return replies
