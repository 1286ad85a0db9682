-- Keep adapted parameters for a while.
-- KEYS: 1 adaptation
-- ARGV: 1 info (JSON), 2 parameters, 3 lifetime (ms)
-- Returns 1.
redis.call('HSET', KEYS[1], 'info', ARGV[1], 'blob', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
