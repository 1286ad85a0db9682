-- Have a message delivered, once.
-- KEYS: 1 message, 2 due, 3 the webhook's last messages
-- ARGV: 1 now (ms or ''), 2 id, 3 webhook, 4 event, 5 body, 6 lifetime (s), 7 most messages kept
-- Returns 1, or 0 when it is known.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = clock(ARGV[1])
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'webhook', ARGV[3], 'event', ARGV[4], 'body', ARGV[5], 'state', 'pending',
  'created_at', whole(now), 'next_at', whole(now), 'tries', 0)
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[7]))
redis.call('EXPIRE', KEYS[3], ARGV[6])
return 1
