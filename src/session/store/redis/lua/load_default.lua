-- Reads one session and starts its idle limit anew, with no detour: this runs for every request.
-- Arguments as in arguments.lua, metadata as in default_layout.lua.
local key, mark = KEYS[1], ARGV[1]
local flat = redis.pcall('HGETALL', key)
if flat.err then return flat end
local size = #flat
if size == 0 then return {mark, 'gone'} end

local bytes, meta = 0, nil
for at = 1, size, 2 do
  local name, value = flat[at], flat[at + 1]
  if name == '\0' then meta = value else bytes = bytes + #name + #value end
end
local created, saved, remember, owner
if meta then
  created, saved, remember, owner = string.match(meta, '^1:(%d+):(%d+):(%d*):(%x+)$')
end
if not owner then return {mark, 'damaged'} end
if owner ~= mark then return {mark, 'foreign'} end
if size > 2 * ARGV[4] + 2 or bytes > tonumber(ARGV[5]) then return {mark, 'oversized'} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local idle = remember ~= '' and remember or ARGV[2]
if ARGV[3] ~= '' then
  local left = created + ARGV[3] - now
  if left <= 0 then
    redis.pcall('DEL', key)
    return {mark, 'gone'}
  end
  if left < tonumber(idle) then idle = string.format('%.0f', left) end
end
-- Never an error: a replica, or a full disk, still lets people read.
redis.pcall('PEXPIRE', key, idle)
return {mark, 'ok', tonumber(created), math.max(now - saved, 0), tonumber(remember) or false, flat}
