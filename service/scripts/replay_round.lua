-- Whether a round is complete, and of how many parts its units are.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 version, 7 units per round
-- Returns {'ok', parts of each unit in order…}, {'none'}, {'old', current}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local version, size = tonumber(ARGV[6]), tonumber(ARGV[7])
if version ~= number('version') then return { 'old', whole(number('version')) } end
local ready = redis.call('ZRANGEBYSCORE', READY, version * size, (version + 1) * size - 1)
if #ready < size then return { 'none' } end
if redis.call('HGET', STATE, 'taken') ~= ARGV[6] then
  redis.call('HSET', STATE, 'taken', ARGV[6])
  count('sampled', size)
end
local reply = { 'ok' }
for _, unit in ipairs(ready) do reply[#reply + 1] = whole(read_unit(unit).parts) end
return reply
