-- Removes expired sessions from an index, unless they have been registered anew. ARGV: their names and values, in turn.
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 1
