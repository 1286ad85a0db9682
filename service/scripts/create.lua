-- Make a record and put it into the queue.
-- KEYS: 1 record, 2 events, 3 index of all ids, 4 queue, 5 leases
-- ARGV: 1 now (ms or ''), 2 id, 3 name, 4 spec (JSON)
-- Returns 1, or 0 when it is there already (a retried call).
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = clock(ARGV[1])
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'name', ARGV[3], 'spec', ARGV[4], 'created_at', whole(now), 'generation', 0)
redis.call('ZADD', KEYS[3], 0, ARGV[2])
enter(KEYS[1], KEYS[2], KEYS[4], KEYS[5], ARGV[2], 'queued', now)
return 1
