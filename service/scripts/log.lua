-- Add lines to a job's log.
-- KEYS: 1 log
-- ARGV: 1 now (ms or ''), 2 most lines, 3 lifetime (s), 4 worker, 5 generation, 6… level, message
-- Returns the number of lines.
local now = clock(ARGV[1])
for i = 6, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'at', whole(now), 'worker', ARGV[4], 'generation', ARGV[5],
    'level', ARGV[i], 'message', ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return (#ARGV - 5) / 2
