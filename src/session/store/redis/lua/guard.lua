-- Runs commands on a record if it is there. To be there it must have the field ARGV[1], if that is one.
local there
if ARGV[1] == '' then
  there = redis.call('EXISTS', KEYS[1])
else
  there = redis.call('HEXISTS', KEYS[1], ARGV[1])
end
if there == 0 then return false end
return run(KEYS[1], 2)
