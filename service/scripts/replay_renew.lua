-- Extend the lease of a claim.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 worker, 7 unit, 8 lease (ms)
-- Returns {'ok'}, {'none'} (not this worker's), {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
if redis.call('HGET', OWNERS, ARGV[7]) ~= ARGV[6] then return { 'none' } end
redis.call('ZADD', CLAIMS, now + tonumber(ARGV[8]), ARGV[7])
renew_lifetimes()
return { 'ok' }
