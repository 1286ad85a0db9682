-- Take a snapshot's counters into a buffer that was reset and not published; what was claimed then may be claimed at once.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 number n of fields, then n pairs of field and value, then claimed units
-- Returns {'ok'}, {'published'}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
if number('version') >= 0 then return { 'published' } end
local pairs_end = 6 + 2 * tonumber(ARGV[6])
for i = 7, pairs_end, 2 do redis.call('HSET', STATE, ARGV[i], ARGV[i + 1]) end
for i = pairs_end + 1, #ARGV do
  redis.call('ZADD', CLAIMS, 0, ARGV[i])
  redis.call('HSET', OWNERS, ARGV[i], '')
end
renew_lifetimes()
return { 'ok' }
