-- Drop everything, install the generation, start at a version.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 version, 7 first unit
-- Returns {'ok'}, {'fenced'}.
if guard() == 'fenced' then return { 'fenced' } end
drop_everything()
redis.call('SET', FENCE, generation, 'EX', ttl)
redis.call('HSET', STATE, 'generation', generation, 'base', ARGV[6], 'version', -1, 'previous', -1,
  'first', ARGV[7], 'next', ARGV[7], 'open', ARGV[7])
renew_lifetimes()
return { 'ok' }
