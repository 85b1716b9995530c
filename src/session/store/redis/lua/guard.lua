-- Runs commands on a record if it is there (ARGV[1] is 1), or if it is not (0). To be there it must have the field
-- ARGV[2], if that is one.
local there
if ARGV[2] == '' then
  there = redis.call('EXISTS', KEYS[1])
else
  there = redis.call('HEXISTS', KEYS[1], ARGV[2])
end
if there ~= tonumber(ARGV[1]) then return false end
local replies = run(KEYS[1], 3)
-- Without its end a new record would stay for ever.
if replies.err and ARGV[1] == '0' then redis.call('UNLINK', KEYS[1]) end
return replies
