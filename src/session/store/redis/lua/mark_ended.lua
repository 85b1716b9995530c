-- Marks sessions of an index as ended: all of them, all but that of the session ARGV[2], or the one with the handle
-- ARGV[2], as ARGV[1] says. From then on none of them can move, and no login in progress is confirmed. Returns
-- their names, or nil if the one to keep is not in the index.
local index, which = KEYS[1], ARGV[1]
local members, stays, ended = redis.call('HGETALL', index), nil, {}
local function handle(value) return string.match(value, '^%S+ %S+ (%S+)') end
if which == 'but' then
  local held = redis.call('HGET', index, ARGV[2])
  if not held or string.match(held, '^%S+') ~= (redis.call('HGET', index, 'generation') or '0') then return false end
  stays = handle(held)
end
if #members == 0 then return ended end
local generation = which == 'one' and '-' or redis.call('HINCRBY', index, 'generation', 1)
for at = 1, #members, 2 do
  local name, value = members[at], members[at + 1]
  if name ~= 'generation' then
    local ends = which ~= 'one' or handle(value) == ARGV[2]
    if stays and handle(value) == stays then
      ends = false
      redis.call('HSET', index, name, generation .. ' ' .. string.match(value, '^%S+ (.*)$'))
    elseif which == 'one' and ends then
      redis.call('HSET', index, name, '- ' .. string.match(value, '^%S+ (.*)$'))
    end
    if ends then ended[#ended + 1] = name end
  end
end
return ended
