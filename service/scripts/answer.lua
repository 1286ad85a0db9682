-- Answer an adaptation request, once.
-- KEYS: 1 reply, 2 payload, 3 requests
-- ARGV: 1 answer, 2 lifetime (s), 3 group, 4 stream entry or ''
-- Returns 1, or 0 when it had been answered before.
local first = redis.call('EXISTS', KEYS[1]) == 0
if first then
  redis.call('XADD', KEYS[1], '*', 'reply', ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
redis.call('UNLINK', KEYS[2])
if ARGV[4] ~= '' then
  redis.call('XACK', KEYS[3], ARGV[3], ARGV[4])
  redis.call('XDEL', KEYS[3], ARGV[4])
end
if first then return 1 end
return 0
