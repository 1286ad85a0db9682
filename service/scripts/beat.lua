-- Note that a part lives, and forget those that do not.
-- KEYS: 1 fleet
-- ARGV: 1 now (ms or ''), 2 member, 3 lifetime (ms; 0 to leave), 4 lifetime of the key (s)
-- Returns 1.
local now = clock(ARGV[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
