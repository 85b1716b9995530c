-- Moves a record to the key of a new id and runs commands on it there. ARGV: what the old proof begins with and what
-- the new one does (nothing in a layout without), when the session was created at the earliest, whether its
-- values go, the proof and the lifetime of a session that is made where there is none to move, if one is, the time, what
-- is left under the old id, and for how long. The last command is the PEXPIRE. The answer is that of the commands, nothing
-- where there is no session, or another request has moved it with a grace period, 0 where the new id is taken, or a proof
-- that is not the session's.
local from, to, own = KEYS[1], KEYS[2], #ARGV[1]
local proof = own > 0 and redis.pcall('HGET', from, '\0')
if type(proof) == 'table' then return proof end
if proof and string.sub(proof, 1, own) ~= ARGV[1] then return proof end
local created = proof and tonumber(string.sub(proof, own + 1), 36)
if own > 0 and not (created and created > tonumber(ARGV[3])) or redis.call('EXISTS', from) == 0 then
  if ARGV[5] == '' or redis.call('EXISTS', to, KEYS[3] or to) > 0 then return false end
  local _, _, has_next = next_key(redis.call('HGET', from, '\0x'), ARGV[7])
  if has_next then return false end
  redis.call('HSET', to, '\0', ARGV[5])
  ARGV[#ARGV] = ARGV[6]
  return run(to, 10)
end
-- What a dead id has left makes room.
if proof and redis.call('HEXISTS', to, '\0') == 1 or not proof and redis.call('EXISTS', to) == 1 then return 0 end
-- What may not be written is found out before anything has moved.
local kept = proof and redis.pcall('HSET', from, '\0', proof)
if type(kept) == 'table' then return kept end
local moved = redis.pcall('RENAME', from, to)
if moved.err then return moved end
if KEYS[3] then redis.call('UNLINK', KEYS[3]) end
if ARGV[4] == '1' then clear(to, function() end) end
if proof then
  redis.call('HSET', to, '\0', ARGV[2] .. string.sub(proof, own + 1))
  leave_tombstone(from, ARGV[8], ARGV[9])
end
return run(to, 10)
