local record = open(KEYS[1])
if record.status ~= 'ok' then return refused(record) end
local name, before = ARGV[6], record.fields[ARGV[6]]
local sum = redis.pcall('HINCRBY', KEYS[1], name, ARGV[7])
if type(sum) == 'table' then
  if string.find(sum.err, 'not an integer') or string.find(sum.err, 'overflow') then
    return {mark, 'not a number'}
  end
  return sum
end
-- As text: a number of Lua has only 53 bits.
record.fields[name] = redis.call('HGET', KEYS[1], name)
if too_large(record.fields) then
  if before then
    redis.call('HSET', KEYS[1], name, before)
  else
    redis.call('HDEL', KEYS[1], name)
  end
  return {mark, 'oversized'}
end
touch(KEYS[1], record)
return {mark, 'ok', record.fields[name]}
