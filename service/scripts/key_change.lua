-- Rotate, revoke or change an API key.
-- KEYS: 1 record
-- ARGV: 1 now (ms or ''), 2 'rotate', 'revoke' or 'change'; to rotate: 3 new digest, 4 its beginning, 5 grace of the
--       old (ms); to change: 3… field, value
-- Returns 'ok', 'missing', or 'revoked' for what comes too late.
local now = clock(ARGV[1])
local digest, revoked = unpack(redis.call('HMGET', KEYS[1], 'digest', 'revoked_at'))
if not digest then return 'missing' end
if ARGV[2] == 'revoke' then
  redis.call('HSETNX', KEYS[1], 'revoked_at', whole(now))
  return 'ok'
end
if revoked then return 'revoked' end
if ARGV[2] == 'change' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
  return 'ok'
end
redis.call('HSET', KEYS[1], 'old_digest', digest, 'old_until', whole(now + tonumber(ARGV[5])), 'digest', ARGV[3],
  'shown', ARGV[4], 'rotated_at', whole(now))
return 'ok'
