-- Count time that a side rested.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 field, 7 seconds
-- Returns {'ok'}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
-- On a full server the time is not counted.
redis.pcall('HINCRBYFLOAT', STATE, ARGV[6], ARGV[7])
return { 'ok' }
