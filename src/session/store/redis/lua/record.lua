-- Writes, and returns the error if there is one. No script raises it: returned as it came, its code is
-- readable in every version of Redis.
local function failed(...)
  local reply = redis.pcall(...)
  return type(reply) == 'table' and reply.err and reply
end

-- Reads a record whole, unless it is larger than any of ours.
local function read(key)
  local count = redis.pcall('HLEN', key)
  if type(count) == 'table' then return count end
  if count == 0 then return {status = 'gone'} end
  if count > max_fields + 1 then return {status = 'oversized'} end
  local record = {flat = redis.call('HGETALL', key), fields = {}}
  for at = 1, #record.flat, 2 do
    record.fields[record.flat[at]] = record.flat[at + 1]
  end
  read_meta(record)
  return record
end

local function measure(fields)
  local count, bytes = 0, 0
  for name, value in pairs(fields) do
    count, bytes = count + 1, bytes + #name + #value
  end
  return count, bytes
end

local function too_large(fields)
  local count, bytes = measure(fields)
  return count > max_fields or bytes > max_bytes
end

-- The record of a live session, or one whose status says why there is none.
local function open(key)
  local record = read(key)
  if record.err or record.status then return record end
  record.status = status_of(record)
  if record.status == 'expired' then
    redis.pcall('DEL', key)
    record.status = 'gone'
  elseif record.status == 'ok' and too_large(record.fields) then
    record.status = 'oversized'
  end
  return record
end

local function refused(record)
  if record.err then return record end
  return {mark, record.status}
end

-- Starts the idle limit anew. Never an error: a replica, or a full disk, still lets people read.
local function touch(key, record)
  redis.pcall('PEXPIRE', key, string.format('%.0f', lifetime_of(record)))
end

local function failed_with(command, key, list)
  for first = 1, #list, 1000 do
    local error = failed(command, key, unpack(list, first, math.min(first + 999, #list)))
    if error then return error end
  end
end
