-- Give a webhook a new secret; the old one signs too for a while. Of two old ones the newer stays.
-- KEYS: 1 webhook
-- ARGV: 1 now (ms or ''), 2 new secret, 3 how long the old one goes on (ms)
-- Returns 1, or 0 when there is no such webhook.
local now = clock(ARGV[1])
local old = redis.call('HGET', KEYS[1], 'secret')
if not old then return 0 end
redis.call('HSET', KEYS[1], 'secret', ARGV[2])
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], 'old_secret', old, 'old_until', whole(now + tonumber(ARGV[3])))
else
  redis.call('HDEL', KEYS[1], 'old_secret', 'old_until')
end
return 1
