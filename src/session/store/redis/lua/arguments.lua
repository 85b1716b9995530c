-- What every script gets. Each reply begins with the mark, so that the reader knows whose reply it is.
local mark, idle, absolute = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_fields, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
