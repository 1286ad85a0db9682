-- What a snapshot holds beside the chunks.
-- KEYS, ARGV 1-5: see _replay.lua.
-- Returns {'ok', {field, value, …} of the state, {unit, its entry, …} of complete units, {claimed unit…}}, {'fenced'},
-- {'lost'}.
local refused = guard()
if refused then return { refused } end
local units = {}
for _, unit in ipairs(redis.call('ZRANGE', READY, 0, -1)) do
  units[#units + 1] = unit
  units[#units + 1] = redis.call('HGET', UNITS, unit)
end
return { 'ok', redis.call('HGETALL', STATE), units, redis.call('ZRANGE', CLAIMS, 0, -1) }
