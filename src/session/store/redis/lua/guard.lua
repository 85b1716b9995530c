-- Runs commands on a record if it is there (ARGV[1] is 1), or if it is not (0).
if redis.call('EXISTS', KEYS[1]) ~= tonumber(ARGV[1]) then return false end
return run(KEYS[1], 2)
