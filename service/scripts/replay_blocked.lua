-- Count time that a side rested.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 field, 7 seconds
-- Returns {'ok'}, {'full'} (the server has no memory; the time is not counted), {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local said = redis.pcall('HINCRBYFLOAT', STATE, ARGV[6], ARGV[7])
return { type(said) == 'table' and said.err and 'full' or 'ok' }
