-- Forget a webhook.
-- KEYS: 1 webhook, 2 index of the tenant's, 3 its last messages
-- ARGV: 1 id
-- Returns 1.
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
