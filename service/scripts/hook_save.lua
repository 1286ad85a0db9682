-- Make or change a webhook.
-- KEYS: 1 webhook, 2 index of the tenant's
-- ARGV: 1 id, 2 facts (JSON), 3 secret, or '' to change one that is there, 4 most webhooks of a tenant
-- Returns {'ok'}, {'missing'}, {'full'}.
if ARGV[3] == '' then
  if redis.call('EXISTS', KEYS[1]) == 0 then return { 'missing' } end
else
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then return { 'full' } end
  redis.call('HSET', KEYS[1], 'secret', ARGV[3])
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
redis.call('HSET', KEYS[1], 'facts', ARGV[2])
return { 'ok' }
