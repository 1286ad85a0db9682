-- Raise the fence of a job on the replay server.
-- KEYS: 1 fence
-- ARGV: 1 generation, 2 lifetime (s)
-- Returns the fence.
local fence = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
redis.call('SET', KEYS[1], fence, 'EX', ARGV[2])
return fence
