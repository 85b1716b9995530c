-- Reads one session and starts its idle limit anew, with no detour: this runs for every request.
-- Arguments as in arguments.lua.
local key, mark = KEYS[1], ARGV[1]
local flat = redis.pcall('HGETALL', key)
if flat.err then return flat end
local size = #flat
if size == 0 then return {mark, 'gone'} end

local bytes = 0
for at = 1, size do bytes = bytes + #flat[at] end
if size > 2 * ARGV[4] or bytes > tonumber(ARGV[5]) then return {mark, 'oversized'} end

-- Never an error: a replica, or a full disk, still lets people read.
redis.pcall('PEXPIRE', key, ARGV[2])
return {mark, 'ok', false, false, false, flat}
