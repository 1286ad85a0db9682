-- Drop a unit that the learner could not read, and let it be claimed again.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 unit, 7 version, 8 mode
-- Returns {'ok', times}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local unit, version = ARGV[6], tonumber(ARGV[7])
count('rejected')
local times = redis.call('HINCRBY', STATE, 'bad:' .. unit, 1)
local entry = read_unit(unit)
local over = ARGV[8] == 'sync' and (not entry or version ~= number('version'))
if over or redis.call('ZSCORE', CLAIMS, unit) or (entry and entry.version ~= version) then return { 'ok', times } end
if entry then drop_unit(unit, entry) else count('left', -1) end
if ARGV[8] == 'async' then count('sampled', -1) end
redis.call('ZADD', CLAIMS, 0, unit)
redis.call('HSET', OWNERS, unit, '')
wake(ROLLOUTS)
renew_lifetimes()
return { 'ok', times }
