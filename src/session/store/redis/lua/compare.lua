-- Runs commands on a record if it is there, which its field ARGV[1] proves, and its field ARGV[2] holds the text ARGV[4], or is
-- not there where ARGV[3] is 'absent'. Otherwise the answer is the proof alone.
local proof = redis.call('HGET', KEYS[1], ARGV[1])
if not proof then return false end
local held = redis.call('HGET', KEYS[1], ARGV[2])
local expected = ARGV[3] ~= 'absent' and ARGV[4]
if held ~= expected then return {proof} end
return run(KEYS[1], 5)
