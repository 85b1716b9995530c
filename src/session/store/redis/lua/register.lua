-- Registers the session ARGV[1] in its user's index, before its record is written, at the time ARGV[5] and for at least
-- ARGV[6] milliseconds. ARGV[2] is the session that moves there, if one does. ARGV[3] is what is kept of a login; empty
-- where somebody is logged in already: then it goes along with the move, and ARGV[4] is for a session that the index
-- does not know. The answer is, behind a login, the whole index; nothing where the session that moves is
-- being ended.
local index, kept = KEYS[1], ARGV[3]
local generation = redis.call('HGET', index, 'generation') or '0'
if kept == '' then
  kept = ARGV[4]
  -- A move that is repeated finds itself.
  local held = redis.call('HGET', index, ARGV[2]) or redis.call('HGET', index, ARGV[1])
  if held then
    local of, rest = string.match(held, '^(%S+) %S+ (.*)$')
    if of ~= generation then return false end
    kept = rest
  end
end
-- What may not set its end is found out before there is an index without one.
local left = redis.call('PTTL', index)
if left < tonumber(ARGV[6]) then redis.call('PEXPIRE', index, ARGV[6]) end
redis.call('HSET', index, ARGV[1], generation .. ' ' .. ARGV[5] .. ' ' .. kept)
if left < 0 then redis.call('PEXPIRE', index, ARGV[6]) end
return ARGV[3] ~= '' and redis.call('HGETALL', index) or {}
