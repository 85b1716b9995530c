-- Runs the commands that ARGV holds from `at` on, each behind the number of its words, on this key. The answer is
-- what they answer, or the first error.
local function run(key, at)
  local replies = {}
  while at <= #ARGV do
    local last = at + tonumber(ARGV[at])
    local reply = redis.pcall(ARGV[at + 1], key, unpack(ARGV, at + 2, last))
    if type(reply) == 'table' and reply.err then return reply end
    replies[#replies + 1] = reply
    at = last + 1
  end
  return replies
end
