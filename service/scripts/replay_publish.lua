-- Make a version current; in sync mode end earlier rounds and open this one.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 version, 7 blob, 8 first unit of its round ('' in async mode),
--       9 end of the units that are open then
-- Returns {'ok'}, {'old', current}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local version, current = tonumber(ARGV[6]), number('version')
if version == current then
  -- A write all the same: a learner that goes on is told so if the server has no memory.
  redis.call('HSET', STATE, 'version', ARGV[6])
  return { 'ok' }
end
if version < current or version < number('base') then return { 'old', whole(math.max(current, number('base'))) } end
redis.call('SET', meta_prefix .. version, ARGV[7], 'EX', ttl)
redis.call('UNLINK', meta_prefix .. redis.call('HGET', STATE, 'previous'))
redis.call('HSET', STATE, 'previous', whole(current), 'version', ARGV[6])
local first = tonumber(ARGV[8])
if first then
  for _, unit in ipairs(redis.call('HKEYS', UNITS)) do
    if tonumber(unit) < first then drop_unit(unit, read_unit(unit)) end
  end
  for _, unit in ipairs(redis.call('ZRANGE', CLAIMS, 0, -1)) do
    if tonumber(unit) < first then drop_claim(unit) end
  end
  redis.call('HSET', STATE, 'next', whole(math.max(number('next'), first)), 'open', ARGV[9])
end
wake(ROLLOUTS)
renew_lifetimes()
return { 'ok' }
