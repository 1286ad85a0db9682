-- Give out one unit; the rule is written in warploom/replay_plan.py.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 worker, 7 lease (ms), 8 mode, 9 rounds, 10 units per round,
--       11 ahead * units per round, 12 window, 13 samples per insert, 14 need
-- Returns {'ok', unit, version}, {'none'}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local version, rounds = number('version'), tonumber(ARGV[9])
if version < 0 or version >= rounds then return { 'none' } end

local function give(unit)
  redis.call('ZADD', CLAIMS, now + tonumber(ARGV[7]), unit)
  redis.call('HSET', OWNERS, unit, ARGV[6])
  renew_lifetimes()
  return { 'ok', unit, whole(version) }
end

local lowest = nil
for _, unit in ipairs(redis.call('ZRANGEBYSCORE', CLAIMS, '-inf', now)) do
  lowest = math.min(lowest or tonumber(unit), tonumber(unit))
end
if lowest then return give(whole(lowest)) end

local function may_issue(next_unit)
  if ARGV[8] == 'sync' then return next_unit < number('open') end
  local outstanding = redis.call('ZCARD', CLAIMS) + redis.call('ZCARD', READY)
  if outstanding < tonumber(ARGV[14]) then return true end
  local rate, sampled = tonumber(ARGV[13]), number('sampled')
  local credit = math.floor(sampled / rate + number('returned') + 1e-9) + tonumber(ARGV[11])
  local demand = (rounds - number('base')) * tonumber(ARGV[10]) - sampled
  return next_unit - number('first') < credit and outstanding < tonumber(ARGV[12])
    and rate * outstanding - number('used') < demand
end

local next_unit = number('next')
if not may_issue(next_unit) then return { 'none' } end
count('next')
return give(whole(next_unit))
