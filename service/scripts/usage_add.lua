-- Count what a key used on one day.
-- KEYS: 1 counters of the day, 2 the key's record
-- ARGV: 1 lifetime (s), 2 when it was used last (ms; 0: unknown), 3… name, amount
-- Returns 1.
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
if ARGV[2] ~= '0' and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HSET', KEYS[2], 'used_at', ARGV[2]) end
return 1
