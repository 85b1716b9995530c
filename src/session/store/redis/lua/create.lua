-- Where RESTORE, which does the same, is refused: makes a record of the fields in ARGV, behind its lifetime, unless the key is
-- taken: 0.
local key = KEYS[1]
if redis.call('EXISTS', key) == 1 then return 0 end
local reply
for at = 2, #ARGV, 1000 do
  reply = redis.pcall('HSET', key, unpack(ARGV, at, math.min(at + 999, #ARGV)))
  if type(reply) == 'table' then break end
end
if type(reply) ~= 'table' then reply = redis.pcall('PEXPIRE', key, ARGV[1]) end
-- Without its end it would stay for ever.
if type(reply) == 'table' then redis.pcall('UNLINK', key) end
return reply
