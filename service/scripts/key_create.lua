-- Store an API key.
-- KEYS: 1 record, 2 index of all ids
-- ARGV: 1 now (ms or ''), 2 id, 3 '1' to replace one that is there, 4… field, value
-- Returns 1, or 0 when there is one already.
if redis.call('EXISTS', KEYS[1]) == 1 and ARGV[3] ~= '1' then return 0 end
redis.call('HDEL', KEYS[1], 'revoked_at', 'old_digest', 'old_until')
redis.call('HSETNX', KEYS[1], 'created_at', whole(clock(ARGV[1])))
redis.call('HSET', KEYS[1], 'id', ARGV[2], unpack(ARGV, 4))
redis.call('ZADD', KEYS[2], 0, ARGV[2])
return 1
