-- Note how a try went.
-- KEYS: 1 message, 2 due
-- ARGV: 1 now (ms or ''), 2 id, 3 number of the try, 4 the attempt (JSON), 5 state, 6 milliseconds until the next try
-- Returns 1, or 0 when another took the message since.
if redis.call('HGET', KEYS[1], 'tries') ~= ARGV[3] then return 0 end
local now = clock(ARGV[1])
local past = redis.call('HGET', KEYS[1], 'attempts')
redis.call('HSET', KEYS[1], 'attempts', past and (past .. '\n' .. ARGV[4]) or ARGV[4], 'state', ARGV[5])
if ARGV[5] == 'pending' then
  redis.call('HSET', KEYS[1], 'next_at', whole(now + tonumber(ARGV[6])))
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[6]), ARGV[2])
else
  redis.call('HDEL', KEYS[1], 'next_at')
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return 1
